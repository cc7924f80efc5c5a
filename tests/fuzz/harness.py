"""Runs one command on one file, and holds it to its promise: a result or one sentence, and nothing left behind."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, settings

from semdpo.cli import app as cli
from semdpo.data.pairs import read_rewrites
from semdpo.errors import ModelError, SemdpoError
from semdpo.protocols import Embeddings
from semdpo.recipe.schema import PromptsConfig
from semdpo.stages.prompts import collect

SECONDS = 10  # of one command on one file; a hundred times what it takes
REPEATABLE = settings(
    derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck), max_examples=60
)
PAIR = {"prompt": "a red ball", "chosen": "a red ball in the desert", "rejected": "a cat"}
JUDGED = {"method": "dpo", "prompt": "a cat", "rewrite": "a cat, oil", "tokens": 4, "distance": 0.1, "clip": 0.3}


class Encoder:
    """Unit vectors that depend on the text."""

    def encode(self, texts: Sequence[str]) -> Embeddings:
        rows = [
            np.random.default_rng(len(text.encode())).normal(size=4) for text in texts
        ]  # which half characters fail
        vectors = np.array([row / np.linalg.norm(row) for row in rows], np.float32)
        return Embeddings(vectors, np.zeros(len(texts), bool), None)


class Models:
    def encoder(self, name: str) -> Encoder:
        return Encoder()


def no_training(*_: object) -> None:
    raise ModelError("there are no models here")


@contextlib.contextmanager
def limited() -> Iterator[None]:
    def ended(*_: object) -> None:
        raise AssertionError(f"no answer in {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, ended)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def run(*arguments: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    before, sys.argv = sys.argv, ["semdpo", *arguments]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), limited():
            try:
                cli.main()
            except SystemExit as ending:
                return int(ending.code or 0), out.getvalue(), err.getvalue()
    finally:
        sys.argv = before
    return 0, out.getvalue(), err.getvalue()


def commands(file: str, folder: Path) -> list[list[str]]:
    """Every command that reads a file of rows."""
    return [
        *(["weigh", file, "-o", str(folder / f"out.{suffix}")] for suffix in ("jsonl", "csv", "parquet")),
        ["audit", file],
        ["audit", str(folder / "good.jsonl"), "--evaluation", file],
        ["train", file, "--model", "no such model", "-o", str(folder / "model"), "--objective", "dpo"],
        ["report", file, "-o", str(folder / "page"), "--fidelity", "clip", "--subject", "dpo", "--baseline", "dpo"],
    ]


def is_clean(text: str) -> bool:
    return not any((ord(each) < 32 and each != "\n") or 0x7F <= ord(each) < 0xA0 for each in text)


def check(arguments: Sequence[str], folder: Path) -> int:
    """Runs a command and holds it to its promise."""
    before = {path.name for path in folder.rglob("*")}
    code, out, err = run(*arguments)
    assert code in (0, 2), (arguments, err)
    assert is_clean(out), (arguments, out)
    assert is_clean(err), (arguments, err)
    assert "Traceback" not in err
    if code == 2:
        assert err.startswith("semdpo: "), (arguments, err)
        assert len(err.splitlines()) == 1, (arguments, err)
        assert {path.name for path in folder.rglob("*")} == before, arguments
    for path in set(folder.glob("out.*")):
        assert run("audit", str(path))[0] == 0, (arguments, "what was written cannot be read again")
        path.unlink()
    return code


def _stages(file: str) -> None:
    """The stages of a run that read a file."""
    for skip_empty in (False, True):
        with contextlib.suppress(SemdpoError), limited():
            collect(PromptsConfig(file=file, skip_empty=skip_empty, test_share=0.5))
    with contextlib.suppress(SemdpoError), limited():
        read_rewrites(file)


def attempt(name: str, content: bytes) -> None:
    folder = Path(tempfile.mkdtemp(prefix="semdpo-fuzz-"))
    try:
        (folder / "good.jsonl").write_text(json.dumps({**PAIR, "distance": 0.1}))
        (folder / name).write_bytes(content)
        file = str(folder / name)
        for arguments in commands(file, folder):
            check(arguments, folder)
        with contextlib.redirect_stderr(io.StringIO()):
            _stages(file)
    finally:
        shutil.rmtree(folder)
