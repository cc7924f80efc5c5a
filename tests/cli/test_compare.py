"""``semdpo compare`` as a user calls it: a table, examples, numbers in a file, and one sentence for what is wrong."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import tiny_models

pytestmark = pytest.mark.slow  # a process with torch for every case

PROMPTS = ["a red ball", "the cat on a mat", "two blue dogs"]


@dataclass(frozen=True)
class Folder:
    """A user's folder, and what starts Python there."""

    path: Path
    python: Path

    def compare(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [self.python, "-m", "semdpo", "compare", *arguments]
        return subprocess.run(command, cwd=self.path, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def here(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    folder = tmp_path_factory.mktemp("here")
    for seed, name in enumerate("ab"):
        tiny_models.gpt2(folder / name, seed=seed)
    tiny_models.clip(folder / "clip")
    (folder / "prompts.txt").write_text("\n".join(PROMPTS) + "\n")
    (folder / "one.txt").write_text("a cat\n")
    (folder / "empty.txt").write_text("")
    return Folder(folder, python)


def test_a_table_examples_and_numbers(here: Folder) -> None:
    usual = ("a", "b", "prompts.txt", "--encoder", "clip", "--max-new-tokens", "6", "--examples", "1")
    done = here.compare(*usual, "--json", "new/c.json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == "wrote new/c.json\n"
    lines = done.stdout.splitlines()
    assert lines[:2] == ["A: a", "B: b"]
    assert lines[3].split("  ")[0] == "mean over prompts"
    assert [line.split("  ")[0] for line in lines[4:9]] == [
        "drift", "tokens", "content words added", "content words dropped", "log-likelihood per token",
    ]  # fmt: skip
    assert "3 prompts, " in done.stdout
    assert "Drift is measured by clip (0: means the same), likelihood under the other rewriter." in done.stdout
    assert sum(prompt in lines for prompt in PROMPTS) == 1, "one example"
    numbers = json.loads((here.path / "new/c.json").read_text())
    assert [row["prompt"] for row in numbers["rows"]] == PROMPTS
    assert (numbers["a"], numbers["b"], numbers["encoder"], numbers["reference"]) == ("a", "b", "clip", None)
    mean = numbers["measures"]["tokens"]["difference"]["mean"]
    assert mean == pytest.approx(sum(row["b"]["tokens"] - row["a"]["tokens"] for row in numbers["rows"]) / 3)
    again = here.compare(*usual, "--json", "new/c.json")
    assert (again.stdout, again.stderr) == (done.stdout, "replaced new/c.json\n")


def test_truncated_rewrites_and_the_reference_are_named(here: Folder) -> None:
    done = here.compare("a", "b", "prompts.txt", "--encoder", "clip", "--max-new-tokens", "2", "--reference", "a")
    assert done.returncode == 0, done.stderr
    assert "likelihood under a." in done.stdout
    assert "rewrites were truncated; raise --max-new-tokens." in done.stdout
    limited = here.compare("a", "b", "prompts.txt", "--encoder", "clip", "--max-new-tokens", "2", "--limit", "2")
    assert "2 prompts, " in limited.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("a", "a", "prompts.txt"), "both rewriters are 'a'; name two different ones"),
        (("a", "absent", "prompts.txt"), "model 'absent' is neither a folder nor a known name"),
        (("a", "b", "prompt.txt"), "there is no file prompt.txt; did you mean 'prompts.txt'?"),
        (("a", "b", "one.txt"), "there is 1 prompt, and an interval needs at least two"),
        (("a", "b", "empty.txt"), "empty.txt is empty"),
        (("a", "b", "prompts.txt", "--encoder", "absent"), "'absent' is neither a folder nor a known name"),
        (("a", "b", "prompts.txt", "--encoder", "a"), "cannot encode texts"),
        (("a", "b", "prompts.txt", "--reference", "absent"), "'absent' is neither a folder nor a known name"),
        (("a", "b", "prompts.txt", "--limit", "0"), "--limit is 0; it must be a number ≥ 1"),
        (("a", "b", "prompts.txt", "--examples", "-1"), "--examples is -1; it must be a number ≥ 0"),
        (("a", "b", "prompts.txt", "--max-new-tokens", "0"), "--max-new-tokens is 0"),
        (("a", "b", "prompts.txt", "--max-new-tokens", "999"), "with --max-new-tokens 999 exceeds the model's 128"),
        (("a", "b", "prompts.txt", "--json", "prompts.txt"), "prompts.txt would overwrite prompts.txt"),
        (("a", "b", "prompts.txt", "--json", "one.txt/x"), "cannot be written"),
        (("a", "b"), "Missing argument"),
    ],
)
def test_what_is_wrong_is_one_sentence(here: Folder, arguments: tuple[str, ...], said: str) -> None:
    before = sorted(here.path.rglob("*"))
    usual = () if "--encoder" in arguments else ("--encoder", "clip")
    done = here.compare(*arguments, *usual)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert sorted(here.path.rglob("*")) == before
