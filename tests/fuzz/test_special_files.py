"""Names that lead to no ordinary file: a command says so at once, and does not wait for what will never come."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from semdpo.errors import StoreError
from semdpo.many_prompts import to_file
from semdpo.prompt_optimizer import Request
from tests.fuzz.harness import PAIR, check, limited, optimizer, run

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has other special files")


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))


def _looped(path: Path) -> None:
    path.with_name("other").symlink_to(path)
    path.symlink_to(path.with_name("other"))


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**42)  # as much as no machine has


SPECIAL: dict[str, Callable[[Path], None]] = {
    "a pipe that nobody writes into": os.mkfifo,
    "a folder": Path.mkdir,
    "a link to itself": lambda path: path.symlink_to(path),
    "two links to each other": _looped,
    "a link to nothing": lambda path: path.symlink_to("nothing"),
    "an endless device": lambda path: path.symlink_to("/dev/zero"),
    "a pipe behind a link": lambda path: (os.mkfifo(path.with_name("pipe")), path.symlink_to("pipe"))[1],
    "a socket": _socket,
    "four terabytes of nothing": _sparse,
}
# What reads a file, as arguments in which {} is the file; good.jsonl, good.yaml and run/ are there.
COMMANDS: dict[str, tuple[str, ...]] = {
    ".jsonl": (
        "weigh {} -o out.jsonl",
        "audit {}",
        "audit good.jsonl --evaluation {}",
        "train {} --model m -o model --objective dpo",
        "train good.jsonl --eval {} --model m -o model --objective dpo",
        "optimize --model m --prompts {}",
        "optimize --model m --prompts {} -o rewrites.csv",
        "optimize red --model m --banned-file {}",
        "compare a b {}",
        "report {} -o page --fidelity clip",
    ),
    ".csv": ("weigh {} -o out.csv", "report {} -o page --fidelity clip", "optimize --model m --prompts {}"),
    ".json": ("audit {}", "optimize --model m --prompts {}"),
    ".txt": ("optimize --model m --prompts {}", "compare a b {}", "optimize red --model m --banned-file {}"),
    ".parquet": ("weigh {} -o out.parquet", "audit good.jsonl --evaluation {}", "report {} -o page --fidelity clip"),
    ".yaml": (
        "run {}",
        "sweep {}",
        "doctor {} --no-measure",
        "train good.jsonl --config {} --model m -o model",
    ),
}
ALL = [(suffix, command) for suffix, commands in COMMANDS.items() for command in commands]


def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("good.jsonl").write_text(json.dumps({**PAIR, "distance": 0.1}))


@pytest.mark.parametrize("what", SPECIAL)
def test_every_command_and_no_ordinary_file(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _folder(tmp_path, monkeypatch)
    for k, (suffix, command) in enumerate(ALL):
        inner = tmp_path / str(k)
        inner.mkdir()
        file = inner / f"special{suffix}"
        SPECIAL[what](file)
        assert check([part.replace("{}", str(file)) for part in command.split()], tmp_path) == 2, command


@pytest.mark.parametrize("what", SPECIAL)
@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet", ".arrow"])
def test_special_files_in_a_folder_of_data(
    what: str, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _folder(tmp_path, monkeypatch)
    Path("data").mkdir()
    SPECIAL[what](tmp_path / f"data/part{suffix}")
    assert check(["audit", "data"], tmp_path) == 2
    assert check(["weigh", "data", "-o", "out.jsonl"], tmp_path) == 2


@pytest.mark.parametrize("what", SPECIAL)
def test_a_doctor_and_no_ordinary_file(what: str, tmp_path: Path) -> None:
    """It opens no file of prompts; where there is none it says so, and ends with 1."""
    SPECIAL[what](tmp_path / "special.jsonl")
    code, out, _ = run("doctor", "tiny", "--no-measure", "--set", f"prompts.file={tmp_path / 'special.jsonl'}")
    assert code == (0 if what == "four terabytes of nothing" else 1)
    assert "special.jsonl" in out


@pytest.mark.parametrize("what", SPECIAL)
def test_special_files_in_a_run(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _folder(tmp_path, monkeypatch)
    Path("run").mkdir()
    SPECIAL[what](tmp_path / "run/recipe.json")
    for command in ("evaluate", "report"):
        assert check([command, "run"], tmp_path) == 2


@pytest.mark.parametrize("what", SPECIAL)
def test_special_files_beside_an_output(what: str, tmp_path: Path) -> None:
    SPECIAL[what](tmp_path / "out.csv.partial")
    with limited(), pytest.raises((StoreError, OSError)):
        to_file(optimizer(), [Request("a cat")], tmp_path / "out.csv", {})
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize("what", ["a pipe that nobody writes into", "an endless device", "a socket"])
def test_nothing_replaces_a_pipe_or_a_device(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As root, ``-o /dev/null`` would put a file in the place of the device."""
    _folder(tmp_path, monkeypatch)
    for suffix, command in {
        ".csv": "weigh good.jsonl -o {}",
        ".html": "audit good.jsonl --html {}",
        ".json": "audit good.jsonl --json {}",
        ".jsonl": "optimize red --model m -o {}",
        ".yaml": "init tiny -o {}",
        ".gguf": "export tiny:gpt2 --to gguf -o {}",
    }.items():
        file = tmp_path / f"special{suffix}"
        SPECIAL[what](file)
        before = file.lstat()
        code, _, err = run(*command.format(file).split())
        assert code == 2, (command, err)
        assert "special" in err
        assert file.lstat() == before
        for each in (file, tmp_path / "pipe"):
            each.unlink(missing_ok=True)


def test_an_endless_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/zero").open(encoding="utf-8") as endless, monkeypatch.context() as patch:
        patch.setattr("semdpo.cli.asked.LARGEST", 100_000)
        patch.setattr("sys.stdin", endless)
        code, _, err = run("optimize", "-", "--model", "m")
    assert code == 2
    assert "more than 100,000 characters" in err


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xff", b"a \xed\xa0\x80", "a cat".encode("utf-16")])
@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])  # the second where no language is set
def test_stdin_that_is_no_text(content: bytes, errors: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stdin").write_bytes(content)
    with (tmp_path / "stdin").open(encoding="utf-8", errors=errors) as file, monkeypatch.context() as patch:
        patch.setattr("sys.stdin", file)
        assert check(["optimize", "-", "--model", "m"], tmp_path) == 2


NAMES: Sequence[str] = (
    "a\nb", "-o", "--help", " ", "a b ", "\u202elsnoj", "'\"`$(touch x)", "%s%n", "{}", "{0.__class__}", "\\", "~",
    "*?[a]", "<b>", "=cmd()", "CON", "é", "é", "🐈", "x" * 240, "a\tb", "\x7f", "\x9b31m", ";", "#", "a:b",
    "hub", "tiny",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_odd_names_of_good_files(name: str, tmp_path: Path) -> None:
    """A name is only a name: it is read and written like any other, and shown in one line."""
    file = tmp_path / f"{name}.jsonl"
    file.write_text(json.dumps({**PAIR, "distance": 0.1}))
    (tmp_path / "good.jsonl").write_text(json.dumps({**PAIR, "distance": 0.1}))
    for arguments in (
        ["audit", str(file)],
        ["audit", str(tmp_path / "good.jsonl"), "--evaluation", str(file)],
        ["weigh", str(file), "-o", str(tmp_path / f"out {name}.csv")],
        ["optimize", "--model", "m", "--prompts", str(file), "-o", str(tmp_path / f"{name}.txt")],
    ):
        assert run(*arguments)[0] == 0, arguments
    assert (tmp_path / f"{name}.txt").read_text() == "a red ball, oil\n"
    file.write_bytes(b"{")
    check(["audit", str(file)], tmp_path)
