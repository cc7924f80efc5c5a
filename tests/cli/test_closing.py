"""The end of a run in the terminal: the results as the report has them, the page's address, a command that works."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest

from semdpo.cli.closing import DEMO, run_closing
from semdpo.cli.report import report_file
from semdpo.models.registry import resolve
from semdpo.recipe.load import load_recipe

PROMPTS = [f"a {color} cat" for color in ("red", "blue", "pale", "green", "grey", "gold")]
CLIP = {"sft": 0.2, "human": 0.5, "kto": 0.3, "sem_dpo": 0.4}  # an order that is not the one to show


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's folder with a report that the package itself wrote."""
    return _reported(tmp_path)


def _reported(tmp_path: Path, facts: str | None = None, also: Sequence[str] = ()) -> Path:
    folder = tmp_path / "my runs/tiny"
    rows = [
        {"method": m, "prompt": p, "rewrite": f"{p}, {m}", "tokens": 4, "distance": 0.1, "clip": value + k / 100}
        | {"image_reward": 12.0 * value}
        for m, value in CLIP.items()
        for k, p in enumerate(PROMPTS)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    report_file(
        str(tmp_path / "rows.jsonl"),
        folder / "report",
        ["clip"],
        ["image_reward"],
        [],
        "sem_dpo",
        "sft",
        "mine",
        facts,
        also,
    )
    return folder


def test_the_table_has_the_users_prompt_first_and_the_reports_means(run: Path) -> None:
    header, *rows = run_closing(run, load_recipe("tiny")).splitlines()[1:6]
    assert header.split() == ["method", "CLIP", "ImageReward", "drift"]
    cells = [line.rsplit(maxsplit=3) for line in rows]
    assert [name for name, *_ in cells] == ["User's prompt", "SFT", "Sem-DPO", "KTO"]
    assert [float(clip) for _, clip, *_ in cells] == pytest.approx([0.525, 0.225, 0.425, 0.325], abs=0.005)
    assert [float(reward) for *_, reward, _ in cells] == pytest.approx([6.0, 2.4, 4.8, 3.6])
    assert {drift for *_, drift in cells} == {"0.10"}
    assert len({len(line) for line in (header, *rows)}) == 1, "columns are aligned"


def test_facts_have_a_table_of_their_own_which_fits_a_terminal(tmp_path: Path) -> None:
    lines = run_closing(_reported(tmp_path, "tiny"), load_recipe("tiny")).splitlines()
    assert lines[1].split() == ["method", "CLIP", "ImageReward"]
    assert lines[6] == ""
    header, *rows = lines[7:12]
    assert re.split("  +", header) == ["method", "drift", "facts wrong", "content added", "popular added"]
    assert [row.rsplit(maxsplit=4)[0] for row in rows] == ["User's prompt", "SFT", "Sem-DPO", "KTO"]
    assert {cell for row in rows for cell in row.rsplit(maxsplit=4)[2:]} == {"0.00"}
    assert len(header) <= 80


def test_methods_with_another_decoding_come_last_with_their_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CLIP, "sem_dpo_sampled", 0.9)
    recipe = load_recipe("tiny")
    rows = run_closing(_reported(tmp_path, also=["sampled"]), recipe).splitlines()[2:7]
    names = [line.rsplit(maxsplit=3)[0] for line in rows]
    assert names == ["User's prompt", "SFT", "Sem-DPO", "KTO", "Sem-DPO, sampled"]


def test_the_demos_table_fits_a_terminal() -> None:
    """Six metrics, with the longest names; 80 columns are what every terminal has."""
    recipe = load_recipe("tiny")
    from semdpo.cli.closing import aligned
    from semdpo.reporting.labels import metric_label

    metrics = [metric_label(name) for name in recipe.evaluate.metrics]
    table = [["method", *metrics], ["Sem-DPO, sampled", *(["0.123"] * len(metrics))]]
    assert max(map(len, aligned(table).splitlines())) <= 80


def test_the_pages_address_opens(run: Path) -> None:
    address = next(line for line in run_closing(run, load_recipe("tiny")).splitlines() if line.startswith("report:"))
    found = urlparse(address.split()[1])
    assert found.scheme == "file"
    assert Path(unquote(found.path)) == (run / "report/index.html").resolve()
    assert Path(unquote(found.path)).is_file()


@pytest.mark.slow
def test_the_next_command_works(run: Path) -> None:
    (run / "train").mkdir()
    (run / "train/sem_dpo").symlink_to(resolve("tiny:gpt2").folder())
    last = run_closing(run, load_recipe("tiny")).splitlines()[-1]
    program, *arguments = shlex.split(last.removeprefix("next:"))
    assert (program, arguments[0]) == ("semdpo", "optimize")
    done = subprocess.run([sys.executable, "-m", "semdpo", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "drift" in done.stderr


def test_after_the_demo_the_next_command_needs_no_model(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs").symlink_to(run.parent)
    assert run_closing(DEMO.parents[1], load_recipe("tiny")).endswith("semdpo optimize 'a red ball in the desert'")
    assert run_closing(run, load_recipe("tiny")).endswith(f"--model '{run / 'train/sem_dpo'}'")


def test_a_run_whose_subject_is_another_rewriter_names_no_next_command(run: Path) -> None:
    recipe = load_recipe("tiny")
    other = recipe.model_copy(update={"report": recipe.report.model_copy(update={"subject": "promptist"})})
    assert "next:" not in run_closing(run, other)
