"""The command line: quick to answer, one sentence for what is wrong, and both commands on pairs with real models."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from semdpo import locks
from semdpo.analysis.semantics import cosine_distance
from semdpo.cli import app as cli
from semdpo.data.pairs import read_pairs
from semdpo.data.tables import read_table

HEAVY = ("torch", "transformers", "diffusers", "pandas", "scipy", "pyarrow", "matplotlib", "numpy", "PIL", "pydantic")


def _main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["semdpo", *arguments])
    with pytest.raises(SystemExit) as ending:
        cli.main()
    return int(ending.value.code or 0)


def _refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line on stderr of a command that must end with code 2."""
    assert _main(monkeypatch, *arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("semdpo: ")
    assert len(said.err.splitlines()) == 1
    return said.err


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real classes at toy size: ``gpt2``, ``clip``, and ``worldly``, a CLIP that has a vocabulary."""
    from tests import tiny_models

    folder = tmp_path_factory.mktemp("models")
    tiny_models.gpt2(folder / "gpt2")
    for name in ("clip", "worldly"):
        tiny_models.clip(folder / name)
    (folder / "worldly" / "vocabulary.json").write_text(json.dumps(["a", "red", "ball"]))
    return folder


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    rows = [
        {"prompt": "a red ball", "chosen": "a ball", "rejected": "ball, oil", "drifted": False},
        {"prompt": "a cat", "chosen": "snowy peaks", "rejected": "a cat, oil", "drifted": True},
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "pairs.jsonl"


def test_help_imports_nothing_heavy() -> None:
    code = f"import sys, semdpo.cli.app; print([m for m in {HEAVY!r} if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded == "[]\n"


def test_reading_a_recipe_imports_no_models() -> None:
    heavy = tuple(name for name in HEAVY if name not in ("pydantic", "numpy", "PIL"))
    code = f"""
import sys
from semdpo.recipe.load import load_recipe
load_recipe("tiny")
print([m for m in {heavy!r} if m in sys.modules])
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_help_lists_every_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    begun = time.monotonic()
    subprocess.run([sys.executable, "-m", "semdpo", "--help"], capture_output=True, check=True)
    assert time.monotonic() - begun < 5  # a busy machine's allowance; alone it takes a fifth of a second
    assert _main(monkeypatch, "--help") == 0
    said = capsys.readouterr().out
    for command in ("demo", "run", "weigh", "train", "optimize", "evaluate", "report", "world"):
        assert f"\n  {command} " in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "tinny"), "unknown recipe 'tinny'; did you mean 'tiny'?"),
        (("run", "tiny", "--set", "sft.stps=1"), "unknown key 'sft.stps'; did you mean 'steps'?"),
        (("run", "tiny", "--only", "lable", "--out", "{tmp}/r"), "no stage 'lable'; did you mean 'label'?"),
        (("run", "tiny", "--set", "prompts.file=absent.txt", "--out", "{tmp}/r"), "there is no file absent.txt"),
        (("run", "tiny", "--out", "{pairs}"), "cannot be written"),
        (("weigh", "absent.jsonl", "-o", "{tmp}/o.csv"), "there is no file absent.jsonl"),
        (("weigh", "{pairs}", "-o", "{tmp}/o.xlsx"), "name it with one of"),
        (("weigh", "{pairs}", "-o", "{tmp}/o.csv", "--encoder", "no such"), "neither a folder nor a known name"),
        (("train", "{pairs}", "--model", "x", "-o", "{tmp}/m"), "run `semdpo weigh"),
        (("train", "{pairs}", "--model", "x", "-o", "{tmp}"), "already exists; remove it"),
        (("train", "{pairs}", "--model", "x", "-o", "{tmp}/m", "--objective", "dop"), "did you mean 'dpo'?"),
        (
            ("train", "{pairs}", "--model", "x", "-o", "{tmp}/m", "--alpha", "-1"),
            "'objective.alpha': it must be a number ≥ 0, or auto, not -1",
        ),
        (("train", "{pairs}", "--model", "x", "-o", "{tmp}/m", "--objective", "dpo"), "neither a folder nor a known"),
        (("optimize", "a cat"), "run `semdpo demo` first, or give --model"),
        (("report", "{tmp}"), "holds no run"),
        (("evaluate", "{tmp}"), "holds no run"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    pairs: Path,
    arguments: tuple[str, ...],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    filled = [each.format(tmp=tmp_path, pairs=pairs) for each in arguments]
    assert said in _refused(monkeypatch, capsys, *filled)
    left = {path.name for path in tmp_path.rglob("*") if path.is_file()} - {".lock"}
    assert left == {"pairs.jsonl"}, "nothing is left half-written"


@pytest.mark.parametrize("arguments", [("rn",), ("run",), ("weigh", "a"), ("run", "tiny", "--fast")])
def test_usage_errors_exit_with_two(monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]) -> None:
    assert _main(monkeypatch, *arguments) == 2


def test_weigh_keeps_the_users_columns_and_sums_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, pairs: Path, models: Path
) -> None:
    from semdpo.models.text_encoder import load_text_encoder

    out = tmp_path / "weighed.parquet"
    assert _main(monkeypatch, "weigh", str(pairs), "-o", str(out), "--encoder", str(models / "clip")) == 0
    said = capsys.readouterr()
    for words in ("2 pairs →", "weight at alpha 4: mean", "effective sample size:", "not reported by this encoder"):
        assert words in said.out
    assert said.err == ""
    assert list(read_table(out).columns["drifted"]) == [False, True]
    rows = read_pairs(out)
    encoder = load_text_encoder(str(models / "clip"))
    expected = cosine_distance(
        encoder.encode([row.prompt for row in rows]).vectors, encoder.encode([row.chosen for row in rows]).vectors
    )
    assert [row.distance for row in rows] == pytest.approx(expected.tolist(), abs=1e-6)


def test_an_encoder_that_does_not_know_the_words_gives_no_distances(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, pairs: Path, models: Path
) -> None:
    name = str(models / "worldly")
    said = _refused(monkeypatch, capsys, "weigh", str(pairs), "-o", str(tmp_path / "o.csv"), "--encoder", name)
    assert "knows only its world's words" in said
    assert "of the words here are unknown; give a CLIP" in said
    assert not (tmp_path / "o.csv").exists()


def test_weighed_pairs_train_a_rewriter_that_optimizes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, pairs: Path, models: Path
) -> None:
    weighed, out = tmp_path / "w.csv", tmp_path / "trained"
    clip = str(models / "clip")
    assert _main(monkeypatch, "weigh", str(pairs), "-o", str(weighed), "--encoder", clip) == 0
    train = ["train", str(weighed), "--model", str(models / "gpt2"), "--max-length", "128", "-o", str(out)]
    assert _main(monkeypatch, *train, "--learning-rate", "1e-3", "--batch-size", "2") == 0
    assert f"wrote {out}" in capsys.readouterr().err
    assert {"config.json", "model.safetensors", "semdpo.json", "curves.parquet"} <= {p.name for p in out.iterdir()}
    assert not list(tmp_path.glob("*.partial"))
    assert not list(tmp_path.glob(".*"))
    assert (
        _main(monkeypatch, "optimize", "a ball", "--model", str(out), "--encoder", clip, "--max-new-tokens", "9") == 0
    )
    said = capsys.readouterr()
    assert said.out.strip()
    assert "drift" in said.err or "no rewrite" in said.err


def test_interrupted_it_says_how_to_go_on(tmp_path: Path) -> None:
    # The process stops in the middle of a command, where a user's Ctrl-C would find it.
    code = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job inherits that it is ignored
from semdpo import cli
from semdpo import disk
import semdpo.recipe.load
def slow(*_):
    print("working", flush=True); time.sleep(60)
semdpo.recipe.load.load_recipe = slow
sys.argv = ["semdpo", "demo"]
cli.main()
"""
    victim = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    try:
        assert victim.stdout is not None
        assert victim.stdout.readline() == "working\n"
        os.kill(victim.pid, signal.SIGINT)
        _, said = victim.communicate(timeout=30)
    finally:
        victim.kill()
    assert victim.returncode == 130
    assert "the same command resumes from here" in said
    assert "Traceback" not in said


def test_two_trainings_into_one_folder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, pairs: Path, models: Path
) -> None:
    out = tmp_path / "m"
    train = ["train", str(pairs), "--model", str(models / "gpt2"), "--objective", "dpo", "-o", str(out)]
    with locks.alone(out, "{}"):
        said = _refused(monkeypatch, capsys, *train)
    assert f"{out} is being trained by process {os.getpid()}" in said
    assert not list(tmp_path.glob("m*"))
