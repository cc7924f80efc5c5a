"""``semdpo export`` as a user calls it: what it says, and one sentence for what is wrong, with nothing left behind."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from semdpo.cli import main
from semdpo.engine import model_folders, store
from tests import tiny_models


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SEMDPO_MODELS", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    tiny_models.gpt2(tmp_path / "mine")
    return tmp_path


def _export(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["semdpo", "export", *arguments])
    with pytest.raises(SystemExit) as ending:
        main()
    return int(ending.value.code or 0)


@pytest.mark.parametrize(
    ("to", "out", "hint"),
    [
        ("hf", "new/folder", ""),
        ("gguf", "new/mine.gguf", ""),
        ("ollama", "new/folder", f"make it known with: ollama create NAME -f {Path('new/folder/Modelfile')}\n"),
    ],
)
def test_it_says_what_it_wrote(
    to: str, out: str, hint: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for said in ("wrote", "replaced"):
        assert _export(monkeypatch, "mine", "--to", to, "-o", out) == 0
        assert capsys.readouterr().err == f"{said} {Path(out)}\n{hint}"
        assert (here / out).exists()
    assert [path.name for path in (here / "new").iterdir()] == [Path(out).name]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("mine", "--to", "onnx", "-o", "x"), "--to is 'onnx'; known: comfy, gguf, hf, ollama"),
        (("mine", "--to", "olama", "-o", "x"), "--to is 'olama'; did you mean 'ollama'?"),
        (("mine", "--to", "gguf", "-o", "x", "--type", "q4_0"), "--type is 'q4_0'; did you mean 'q8_0'?"),
        (("mine", "--to", "hf", "-o", "x", "--type", "q8_0"), "--type q8_0 is for --to gguf and --to ollama"),
        (("absent", "--to", "gguf", "-o", "x"), "model 'absent' is neither a folder nor a known name"),
        (("notes.txt", "--to", "gguf", "-o", "x"), "model 'notes.txt' is a file; give the folder that contains it"),
        (("other", "--to", "hf", "-o", "x"), "'other' does not hold a readable model"),
        (("mine", "--to", "comfy", "-o", "x"), "not of a kind that ComfyUI can write with"),
        (("tiny:clip", "--to", "gguf", "-o", "x"), "does not hold a readable model"),
        (("mine", "--to", "hf", "-o", "mine"), "mine would overwrite mine, which is read"),
        (("mine", "--to", "gguf", "-o", "mine/x.gguf"), "would overwrite mine, which is read"),
        (("mine", "--to", "hf", "-o", "other"), "other was not made by semdpo and would be lost"),
        (("mine", "--to", "ollama", "-o", "notes.txt"), "notes.txt"),
        (("mine", "--to", "gguf", "-o", "notes.txt"), "notes.txt was not exported by semdpo and would be lost"),
        (("mine", "--to", "gguf", "-o", "other"), "other is a folder; name a file in it"),
        (("mine", "--to", "gguf", "-o", "notes.txt/x"), "notes.txt is a file"),
    ],
)
def test_wrong_input_is_one_sentence(
    arguments: tuple[str, ...],
    said: str,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (here / "notes.txt").write_text("mine")
    (here / "other").mkdir()
    (here / "other/notes.txt").write_text("mine")
    before = sorted(here.rglob("*"))
    assert _export(monkeypatch, *arguments) == 2
    told = capsys.readouterr().err
    assert told.startswith("semdpo: ")
    assert len(told.splitlines()) == 1
    assert said in told
    assert sorted(here.rglob("*")) == before
    assert (here / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("to", ["hf", "gguf", "ollama", "comfy"])
def test_a_damaged_rewriter_is_refused(
    to: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = store.Plan({}, {})
    tiny_models.gpt2(model_folders.start(here / "trained", plan))
    model_folders.finish(here / "trained", plan, {})
    weights = here / "trained/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert _export(monkeypatch, "trained", "--to", to, "-o", "out") == 2
    assert f"{Path('trained/model.safetensors')} is damaged, edited or missing" in capsys.readouterr().err
    assert not (here / "out").exists()


def test_half_a_file_of_weights_is_refused(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = here / "mine/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert _export(monkeypatch, "mine", "--to", "gguf", "-o", "x.gguf") == 2
    assert "'mine' does not hold a readable model" in capsys.readouterr().err
    assert [path.name for path in here.iterdir()] == ["mine"]


@pytest.mark.parametrize("to", ["gguf", "ollama"])
def test_the_missing_library_is_named(
    to: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("semdpo.extras.absent", lambda extra: ["gguf"] if extra == "gguf" else [])
    assert _export(monkeypatch, "mine", "--to", to, "-o", "x") == 2
    told = capsys.readouterr().err
    assert told == f"semdpo: --to {to} needs gguf; install it with: pip install 'semdpo[gguf]'\n"
