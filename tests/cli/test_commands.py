"""Every command with odd values: one sentence that names the option, exit code 2, and nothing written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from semdpo.cli import app as cli

LONG = "x" * 300
PAIR = {"prompt": "a red ball", "chosen": "a red ball at night", "rejected": "a ball"}
SERVE = ("serve", "--model", "tiny:gpt2")
TRAIN = ("train", "pairs.jsonl", "--model", "tiny:gpt2", "-o", "m")
ROWS = [
    {"method": m, "prompt": f"a {c} cat", "rewrite": f"a {c} cat, {m}", "tokens": 4, "distance": 0.1, "clip": s}
    for m in ("dpo", "sem_dpo")
    for c, s in (("red", 0.2), ("blue", 0.3), ("pale", 0.1))
]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with pairs (``weighed.jsonl`` has distances), a table of scored images, a file and a run's folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("SEMDPO_CACHE", str(tmp_path / "cache"))
    Path("pairs.jsonl").write_text(json.dumps(PAIR))
    Path("weighed.jsonl").write_text(json.dumps(PAIR | {"distance": 0.1}))
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    Path("FILE").write_text("mine")
    Path("RUN").mkdir()
    return tmp_path


def _main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["semdpo", *arguments])
    with pytest.raises(SystemExit) as ending:
        cli.main()
    return int(ending.value.code or 0)


def _content(folder: Path) -> dict[str, bytes | None]:
    files = (each for each in folder.rglob("*") if "cache" not in each.relative_to(folder).parts)
    return {str(each): each.read_bytes() if each.is_file() else None for each in files}


NUMBERS = [
    (("weigh", "pairs.jsonl", "-o", "o.csv"), "--alpha", ["-1", "inf", "-inf", "nan", "x", "1e999"]),
    (("weigh", "pairs.jsonl", "-o", "o.csv"), "--batch-size", ["0", "-1", "1.5", "inf", "x"]),
    (("audit", "weighed.jsonl", "--html", "o.html"), "--alpha", ["-1", "inf", "nan", ""]),
    (("audit", "weighed.jsonl", "--html", "o.html"), "--fail-on", ["ties=nan", "ties=-1", "ties=2", "ties=inf", "x"]),
    (SERVE, "--port", ["-1", "65536", "1.5", "x"]),
    (SERVE, "--queue", ["0", "-1", "x"]),
    (SERVE, "--batch", ["0", "1025"]),
    (SERVE, "--time-limit", ["0", "-1", "inf", "nan"]),
    (SERVE, "--max-drift", ["-0.1", "2.1", "nan"]),
    (TRAIN, "--alpha", ["-1", "inf", "nan", "-4e0", "x", "", "[4]", "true", "null"]),
    (TRAIN, "--beta", ["0", "-1", "inf", "nan"]),
    (TRAIN, "--learning-rate", ["0", "-1", "inf", "nan", "2"]),
    (TRAIN, "--epochs", ["0", "-1", "1.5"]),
    (TRAIN, "--batch-size", ["0", "-8"]),
    (TRAIN, "--micro-batch-size", ["0", "-8"]),
    (TRAIN, "--max-length", ["0", "-1"]),
    (TRAIN, "--warmup-ratio", ["-0.1", "1", "nan", "inf"]),
    (TRAIN, "--seed", ["-1", str(2**63), "1.5"]),
    (TRAIN, "--precision", ["half", "", "float64"]),
    (TRAIN, "--checkpoint-steps", ["0", "-1"]),
    (TRAIN, "--lora-rank", ["0", "-1"]),
    (TRAIN, "--report-to", ["nosuch", "", "tensorbord"]),
    (TRAIN, "--template", ["", "x", "{prompt} {style}", "{prompt}{prompt}", "{{prompt}}", "{}", "{prompt} {0}"]),
    (TRAIN, "--set", ["nll_coef=-1", "nll_coef=inf", "foo=1", "kept_share=0", "x", "beta=0", "=", "a.b=1"]),
    (TRAIN, "--objective", ["dop", "", "sem-dpo"]),
    (("optimize", "a cat", "--model", "tiny:gpt2"), "--max-drift", ["3", "-0.1", "nan", "inf", "x"]),
    (("optimize", "a cat", "--model", "tiny:gpt2"), "--max-new-tokens", ["0", "-1", "2.5"]),
    (("world", "build"), "--jobs", ["0", "-2", "x"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("command", "option", "value"),
    [(command, option, value) for command, option, values in NUMBERS for value in values],
)
def test_values_out_of_range_are_refused_by_the_options_name(
    command: tuple[str, ...], option: str, value: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], here: Path,
) -> None:  # fmt: skip
    before = _content(here)
    assert _main(monkeypatch, *command, option, value) == 2
    said = capsys.readouterr().err
    assert said.startswith("semdpo: ")
    assert len(said.splitlines()) == 1
    assert option in said
    assert "--objective" not in said or option == "--objective"
    assert _content(here) == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("report", "RUN", "--fidelity", "clip", "-o", "r"), "--out and --fidelity have no effect on a run's report"),
        (("report", "RUN", "--title", "Sem-DPO report"), "--title has no effect"),
        (("report", "RUN", "--subject", "sem_dpo"), "--subject has no effect"),
        (("report", "RUN", "--facts", "tiny"), "--facts has no effect"),
        (("report", "RUN", "--also", "sampled"), "--also has no effect"),
        (
            ("run", "tiny", "--set", "train.methods.dpo_sampled={name: dpo}"),
            "evaluate.also.sampled makes a method 'dpo_sampled', which already exists; rename one of them",
        ),
        (("report", "rows.jsonl", "-o", "r", "--fidelity", "clip", "--subject", "dpo"), "are both 'dpo'"),
        (("run", "tiny", "--only", "report", "--fresh"), "--fresh has no effect"),
        (("demo", "--only", "report", "--fresh"), "--fresh has no effect"),
        (("doctor", "--set", "train.beta=1"), "--set has no effect without a recipe"),
        (("doctor", "--no-measure"), "--no-measure has no effect without a recipe"),
        (("doctor", "--measure"), "--measure has no effect without a recipe"),
        (("doctor", "--price", "2"), "--price has no effect without a recipe"),
        (("doctor", "tiny", "--no-measure", "--prompts", "9"), "--prompts has no effect with --no-measure"),
        (("doctor", "tiny", "--price", "-1"), "--price is -1; it must be a number ≥ 0"),
        (("doctor", "tiny", "--price", "nan"), "--price is nan; it must be a number ≥ 0"),
        (("doctor", "tiny", "--prompts", "0"), "--prompts is 0; it must be a number ≥ 1"),
        (("doctor", "tiny", "--workers", "0"), "--workers is 0; it must be a number from 1 to 1024"),
        ((*TRAIN, "--alpha", "4", "--set", "alpha=2"), "--alpha and --set alpha=2 are the same setting"),
        ((*TRAIN, "--beta", "0.1", "--set", "beta=0.2"), "--beta and --set beta=0.2 are the same setting"),
        ((*TRAIN, "--learning-rate", "1e-5", "--set", "learning_rate=1e-4"), "are the same setting"),
        ((*TRAIN, "--set", "alpha=2", "--set", "alpha=4"), "--set alpha is given twice"),
        ((*TRAIN, "--set", "name=dpo"), "name the objective with --objective"),
        ((*TRAIN, "--set", "kept_share=0.5"), "no effect without --alpha auto"),
        ((*TRAIN, "--alpha", "4", "--set", "kept_share=0.5"), "no effect without --alpha auto"),
        ((*TRAIN, "--objective", "dpo", "--alpha", "4"), "--alpha has no effect on dpo"),
        ((*TRAIN, "--objective", "kto", "--alpha", "0"), "--alpha has no effect on kto"),
        ((*TRAIN, "--objective", "dpo", "--set", "alpha=4"), "alpha belongs to sem_dpo, not to dpo"),
        ((*TRAIN, "--objective", "orpo", "--beta", "0.05"), "--beta has no effect on orpo"),
        ((*TRAIN, "--objective", "simpo", "--beta", "2"), "--beta has no effect on simpo"),
        ((*TRAIN, "--objective", "sft", "--beta", "0.1"), "--beta has no effect on sft"),
        ((*TRAIN, "--objective", "sft", "--set", "nll_coef=0.1"), "--set nll_coef=0.1 has no effect on sft"),
        ((*TRAIN, "--objective", "orpo", "--set", "beta=0.1"), "beta has no effect on orpo"),
        ((*TRAIN, "--objective", "kto", "--batch-size", "1"), "set --batch-size ≥ 2"),
        ((*TRAIN, "--objective", "kto", "--micro-batch-size", "2"), "remove --micro-batch-size"),
        ((*TRAIN, "--report-to", "clearml"), "the tracker 'clearml' is not installed"),
        (("audit", "weighed.jsonl", "--encoder", "tiny:clip"), "--encoder tiny:clip has no effect"),
        (("audit", "weighed.jsonl", "--fail-on", "ties", "--fail-on", "ties=0.1"), "--fail-on ties is given twice"),
        (("audit", "weighed.jsonl", "--html", "a", "--json", "./a"), "--html and --json name the same file"),
        (("audit", "weighed.jsonl", "--json", "weighed.jsonl"), "overwrite weighed.jsonl, which is read"),
        (("audit", "weighed.jsonl", "--evaluation", "FILE", "--html", "FILE"), "overwrite FILE, which is read"),
        (("report", "RUN/../rows.jsonl", "-o", ".", "--fidelity", "clip"), "lies in the folder that the report"),
        (("world", "show", "-o", "sheet.foo"), "name it with .png"),
        (("world", "show", "-o", "sheet"), "name it with .png"),
        (("optimize", " \t"), "the prompt is empty"),
        (("optimize", "a cat", "--model", ""), "model '' is neither a folder"),
        (("optimize", "a \udcff cat"), "is not UTF-8"),
        (("weigh", "\udcff.jsonl", "-o", "o.csv"), "is not UTF-8"),
        (("run", "tiny", "--set", "report.title=\udcff"), "is not UTF-8"),
        (("optimize", "a \0 cat"), "null character"),
        (("weigh", "pairs.jsonl"), "Missing option '--out'"),
        (("weigh", "pairs.jsonl", "-o", "o.csv", "--alhpa", "4"), "No such option"),
    ],
)
def test_what_has_no_effect_or_no_sense_is_refused(
    arguments: tuple[str, ...], said: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], here: Path,
) -> None:  # fmt: skip
    before = _content(here)
    assert _main(monkeypatch, *arguments) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.startswith("semdpo: ")
    assert len(told.splitlines()) == 1
    assert _content(here) == before


PLACES = [
    ("weigh", "pairs.jsonl", "-o", "{}.csv"),
    ("audit", "weighed.jsonl", "--html", "{}"),
    ("audit", "weighed.jsonl", "--json", "{}"),
    (*TRAIN[:-1], "{}", "--objective", "dpo"),
    ("run", "tiny", "--out", "{}"),
    ("demo", "--out", "{}"),
    ("sweep", "tiny", "--out", "{}"),
    ("report", "rows.jsonl", "--fidelity", "clip", "-o", "{}"),
    ("compare", "a", "b", "rows.jsonl", "--json", "{}"),
    ("init", "-o", "{}.yaml"),
    ("world", "show", "-o", "{}.png"),
    ("world", "build", "clip", "-o", "{}"),
    ("doctor", "tiny", "--no-measure", "--out", "{}"),
    ("doctor", "--out", "{}"),
    ("export", "tiny:gpt2", "--to", "hf", "-o", "{}"),
    ("export", "tiny:gpt2", "--to", "ollama", "-o", "{}"),
    ("export", "tiny:gpt2", "--to", "gguf", "-o", "{}"),
    ("export", "tiny:gpt2", "--to", "comfy", "-o", "{}"),
]


@pytest.mark.parametrize("place", ["FILE/x", "FILE/x/y", LONG, f"RUN/{LONG}/x", f"FILE/{LONG}"])
@pytest.mark.parametrize("command", PLACES, ids=" ".join)
def test_places_that_cannot_be_written_are_told_before_any_work(
    command: tuple[str, ...], place: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], here: Path,
) -> None:  # fmt: skip
    monkeypatch.setattr("semdpo.models.registry.Place.folder", None)  # without which nothing can be loaded
    before = _content(here)
    assert _main(monkeypatch, *(each.format(place) for each in command)) == 2
    told = capsys.readouterr().err
    assert "cannot be written" in told
    assert len(told.splitlines()) == 1
    assert _content(here) == before


READS = [
    ("weigh", "{}.jsonl", "-o", "o.csv"),
    ("weigh", "pairs.jsonl", "-o", "o.csv", "--encoder", "{}"),
    ("audit", "weighed.jsonl", "--evaluation", "{}.txt"),
    ("audit", "pairs.jsonl", "--encoder", "{}"),
    ("train", "{}", "--model", "tiny:gpt2", "-o", "m", "--objective", "dpo"),
    ("train", "pairs.jsonl", "--model", "{}", "-o", "m", "--objective", "dpo"),
    ("train", "weighed.jsonl", "--model", "tiny:gpt2", "-o", "m", "--eval", "{}"),
    ("train", "weighed.jsonl", "--model", "tiny:gpt2", "-o", "m", "--config", "{}"),
    ("compare", "tiny:gpt2", "{}", "rows.jsonl"),
    ("compare", "tiny:gpt2", "b", "{}.txt"),
    ("compare", "tiny:gpt2", "FILE", "rows.jsonl", "--reference", "{}"),
    ("init", "{}"),
    ("export", "{}", "--to", "gguf", "-o", "o.csv"),
    ("optimize", "a cat", "--model", "{}"),
    ("optimize", "a cat", "--model", "tiny:gpt2", "--encoder", "{}"),
    ("run", "{}"),
    ("run", "{}.yaml"),
    ("run", "tiny", "--out", "q", "--set", "prompts.file={}.txt"),
    ("run", "tiny", "--out", "q", "--set", "sft.model={}"),
    ("run", "tiny", "--out", "q", "--set", "name={}"),
    ("run", "tiny", "--out", "q", "--only", "{}"),
    ("doctor", "{}.yml", "--no-measure"),
    ("sweep", "{}"),
    ("evaluate", "{}"),
    ("report", "{}"),
    ("report", "{}", "-o", "r", "--fidelity", "clip"),
    ("world", "build", "{}"),
]


@pytest.mark.parametrize("name", [LONG, f"a/{LONG}", "FILE/x"])
@pytest.mark.parametrize("command", READS, ids=" ".join)
def test_names_that_cannot_be_there_are_not_found(
    command: tuple[str, ...], name: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], here: Path,
) -> None:  # fmt: skip
    assert _main(monkeypatch, *(each.format(name) for each in command)) == 2
    told = capsys.readouterr().err
    assert told.startswith("semdpo: ")
    assert len(told.splitlines()) == 1
    assert "check the path, its permissions" not in told, "the net under all commands was not needed"
    assert not list(here.rglob("*.csv"))


def test_what_nobody_foresaw_of_the_system_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "/somewhere")

    monkeypatch.setattr("semdpo.cli.weigh.weigh_file", fails)
    assert _main(monkeypatch, "weigh", "pairs.jsonl", "-o", "o.csv") == 2
    assert capsys.readouterr().err.startswith("semdpo: /somewhere: Permission denied;")


def test_a_replaced_file_is_mentioned(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    audit = ("audit", "weighed.jsonl", "--html", "a.html", "--json", "a.json")
    report = ("report", "rows.jsonl", "-o", "r", "--fidelity", "clip")
    weigh = ("weigh", "pairs.jsonl", "-o", "o.csv")
    monkeypatch.setattr("semdpo.tiny_world.show.paint", lambda *_: __import__("numpy").zeros((8, 8, 3), "uint8"))

    class Blank:
        def render(self, prompts: list[str], seeds: list[int]) -> list[object]:
            from PIL import Image

            return [Image.new("RGB", (8, 8))] * len(prompts)

    monkeypatch.setattr("semdpo.models.renderer.load_renderer", lambda *_, **__: Blank())
    show = ("world", "show", "-o", "new/folder/sheet.png")
    for command, named in (
        (audit, ["replaced a.html", "replaced a.json"]),
        (report, [f"report: {Path('r/index.html')} (replaced)"]),
        (weigh, ["replaced o.csv"]),
        (show, [f"replaced {Path('new/folder/sheet.png')}"]),
    ):
        assert _main(monkeypatch, *command) == 0
        assert "replaced" not in capsys.readouterr().err
        assert _main(monkeypatch, *command) == 0
        told = capsys.readouterr().err
        assert all(each in told for each in named), told


def test_the_package_is_a_command() -> None:
    told = subprocess.run([sys.executable, "-m", "semdpo", "--help"], capture_output=True, text=True, check=True)
    assert "Usage: python -m semdpo" in told.stdout


def test_bytes_that_are_not_utf8(here: Path) -> None:
    command = [os.fsencode(sys.executable), b"-m", b"semdpo", b"optimize", b"a \xff cat"]
    told = subprocess.run(command, capture_output=True, check=False)
    assert told.returncode == 2
    assert b"is not UTF-8" in told.stderr
    assert b"Traceback" not in told.stderr


@pytest.mark.parametrize("alpha", ["4e0", "4", "+4.0", "4.", "auto"])
def test_a_strength_is_a_number_however_it_is_written(alpha: str) -> None:
    from semdpo.cli.objective import objective_of
    from semdpo.cli.train_settings import collect

    def strength(of_option: str | None, assigned: list[str]) -> object:
        values = {"objective": "sem_dpo", "alpha": of_option}
        return objective_of(collect(values, set(), assigned, None)).model_dump()["alpha"]

    assert strength(alpha, []) == strength(None, [f"alpha={alpha}"]) == ("auto" if alpha == "auto" else 4.0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((*TRAIN, "--objective", "dpo", "--max-length", "1"), "raise --max-length to "),
        ((*TRAIN, "--objective", "dpo", "--micro-batch-size", "3"), "--micro-batch-size 3 does not divide"),
        (
            ("optimize", "a cat", "--model", "tiny:gpt2", "--max-new-tokens", "999"),
            "--max-new-tokens is 999, but the model has room for",
        ),
    ],
)
def test_what_is_found_later_names_the_option_too(
    arguments: tuple[str, ...], said: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], here: Path,
) -> None:  # fmt: skip
    assert _main(monkeypatch, *arguments) == 2
    assert said in capsys.readouterr().err
    assert not list(here.glob("m*"))


def test_the_seed_may_be_any_that_is_allowed(monkeypatch: pytest.MonkeyPatch, here: Path) -> None:
    assert _main(monkeypatch, *TRAIN, "--objective", "dpo", "--seed", str(2**63 - 1)) == 0
    assert {each.name for each in here.iterdir() if each.name.startswith("m")} == {"m"}
