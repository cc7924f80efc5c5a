"""Runs one command on one file, and holds it to its promise: a result or one sentence, and nothing left behind."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import re
import shutil
import signal
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, settings

from semdpo.cli import app as cli
from semdpo.data.pairs import read_rewrites
from semdpo.errors import ModelError, SemdpoError
from semdpo.prompt_optimizer import PromptOptimizer
from semdpo.protocols import Embeddings
from semdpo.recipe.prompts import PromptsConfig
from semdpo.stages.prompts import collect

SECONDS = 8  # that one command may compute on one file; a hundred times what it takes
LONGEST = 2500  # characters of a sentence
INPUTS: dict[str, set[bytes]] = defaultdict(set)  # command → digests of what it was given, for the count at the end
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


class Adds:
    """A rewriter that adds the same words to every prompt."""

    def rewrite(self, prompts: Sequence[str], n: int, seed: int) -> list[list[str]]:
        return [[f"{prompt}, oil"] * n for prompt in prompts]


def optimizer(*_: object, **__: object) -> PromptOptimizer:
    return PromptOptimizer(Adds(), Adds(), Encoder(), max_drift=2, fingerprint="f", encoder_name="tiny:clip")


class HangsError(BaseException):
    """Nothing catches it."""


def no_training(*_: object, **__: object) -> None:
    raise ModelError("there are no models here; add some")


@contextlib.contextmanager
def limited(seconds: float = SECONDS) -> Iterator[None]:
    """Ends what computes for longer, or waits six times as long: a busy machine is slow."""

    def ended(*_: object) -> None:
        raise HangsError(f"no answer in {seconds} seconds")

    before = [(number, signal.signal(number, ended)) for number in (signal.SIGPROF, signal.SIGALRM)]
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, 6 * seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before:
            signal.signal(number, handler)


def count(arguments: Sequence[str]) -> None:
    """Notes what a command is given: the contents of its files, its other arguments without their folders."""
    options = [each for each in arguments[1:] if each.startswith("-") and len(each) < 30]
    digest = hashlib.sha256()
    for each in arguments:
        path = Path(each)
        with contextlib.suppress(OSError, ValueError):
            if path.is_file() and path.stat().st_size < 2**27:
                digest.update(path.read_bytes())
        digest.update(path.name.encode("utf-8", "surrogatepass") + b"\0")
    INPUTS[" ".join([arguments[0], *options])].add(digest.digest())


def run(*arguments: str) -> tuple[int, str, str]:
    count(arguments)
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
    good = str(folder / "good.jsonl")
    return [
        *(["weigh", file, "-o", str(folder / f"out.{suffix}")] for suffix in ("jsonl", "csv", "parquet")),
        ["audit", file],
        ["audit", good, "--evaluation", file],
        ["train", file, "--model", "no such model", "-o", str(folder / "model"), "--objective", "dpo"],
        ["train", good, "--eval", file, "--model", "no such model", "-o", str(folder / "model"), "--objective", "dpo"],
        ["optimize", "--model", "m", "--prompts", file, "-o", str(folder / "rewrites.csv")],
        ["optimize", "a cat", "--model", "m", "--banned-file", file],
        ["compare", "tiny:gpt2", "tiny:gpt2", file],
        ["report", file, "-o", str(folder / "page"), "--fidelity", "clip", "--subject", "dpo", "--baseline", "sem_dpo"],
    ]


def is_clean(text: str) -> bool:
    return not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", text)


def runs_in_a_spreadsheet(cell: str) -> bool:
    """Whether a spreadsheet takes a cell for a formula; numbers may begin with a sign."""
    return bool(re.match(r"[=+\-@\t\r\n＝＋－＠]", cell)) and not re.fullmatch(r"[+-]?[\d.]+(e[+-]?\d+)?", cell, re.I)


def refuse_formulas(path: Path) -> None:
    with path.open(encoding="utf-8", newline="") as file:
        csv.field_size_limit(2**31 - 1)
        for row in csv.reader(file):
            assert not any(map(runs_in_a_spreadsheet, row)), row


def refuse_unclear(sentence: str) -> None:
    """One sentence, not too long to read, with its cure after a semicolon or a comma."""
    assert sentence.startswith("semdpo: "), sentence
    assert len(sentence) < LONGEST, sentence
    assert re.search(r"[;,] \w", sentence), sentence


def check(arguments: Sequence[str], folder: Path) -> int:
    """Runs a command and holds it to its promise."""
    before = {path.name for path in folder.rglob("*")}
    code, out, err = run(*arguments)
    assert code in (0, 2), (arguments, err)
    assert is_clean(out), (arguments, out)
    assert is_clean(err), (arguments, err)
    assert "Traceback" not in err
    if code == 2:
        *remarks, sentence = err.splitlines()
        assert not any(line.startswith(("semdpo: ", "Traceback")) for line in remarks), (arguments, err)
        refuse_unclear(sentence)
        assert {path.name for path in folder.rglob("*")} == before, arguments
    for path in set(folder.glob("rewrites.*")):
        refuse_formulas(path)
        path.unlink()
    for path in set(folder.glob("out.*")):
        if path.suffix == ".csv":
            refuse_formulas(path)
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
