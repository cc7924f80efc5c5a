"""Progress for people: a bar with the time left on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from semdpo.texts import printable

PLAIN_EVERY = 5.0  # seconds between plain lines


class Progress(Protocol):
    """Told how far a long step is."""

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """``done`` of ``total`` are finished; ``note`` is a short remark such as the current loss."""
        ...


def silent(done: int, total: int, note: str = "") -> None:
    """A ``Progress`` that says nothing."""


def part_of(progress: Progress, start: int, whole: int) -> Progress:
    """A ``Progress`` for one part of a longer step.

    Args:
        progress: of the whole step.
        start: how much of the whole was finished before this part.
        whole: the total of the whole step.
    """

    def advance(done: int, total: int, note: str = "") -> None:
        progress(start + min(done, total), whole, note)

    return advance


def share_of(progress: Progress, index: int, count: int) -> Progress:
    """A ``Progress`` for one of ``count`` steps of equal size, the one at ``index``."""

    def advance(done: int, total: int, note: str = "") -> None:
        progress(index * total + done, count * total, note)

    return advance


def say(line: str) -> None:
    """A line for people, on stderr; of several processes only the first speaks.

    What users' files and names bring into it steers no terminal; see ``texts.printable``.
    """
    if os.environ.get("RANK", "0") != "0":
        return
    print(printable(line, lines=True), file=sys.stderr, flush=True)


def show(text: str) -> None:
    """A command's answer, on stdout; it steers no terminal either."""
    print(printable(text, lines=True), flush=True)


@contextmanager
def bar(title: str) -> Iterator[Progress]:
    """Shows on stderr what is being done, how far it is and how long it will take.

    Args:
        title: what is being done, e.g. ``label: drawing and scoring``.
    """
    if sys.stderr.isatty():
        with _rich_bar(title) as progress:
            yield progress
    else:
        yield _PlainLines(title)


@contextmanager
def _rich_bar(title: str) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = [
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    ]
    # transient: the stage's closing line says the same in less room
    with Bars(*columns, console=Console(stderr=True), redirect_stdout=False, transient=True) as bars:
        task = bars.add_task(title, total=None, note="")

        def advance(done: int, total: int, note: str = "") -> None:
            bars.update(task, completed=done, total=total, note=note)

        yield advance


class _PlainLines:
    """A line every few seconds; a step that is shorter gets none."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.last = time.monotonic()
        # Where and when counting began: neither resumed work nor the loading of models may bend the time left.
        self.first: tuple[int, float] | None = None

    def __call__(self, done: int, total: int, note: str = "") -> None:
        now = time.monotonic()
        if self.first is None:
            self.first = done, now
        if now - self.last < PLAIN_EVERY or done >= total:
            return
        self.last = now
        left = _left(now - self.first[1], done - self.first[0], total - done)
        say(f"{self.title}: {done}/{total}{left} {note}".rstrip())


def _left(elapsed: float, done: int, remaining: int) -> str:
    return f", {elapsed / done * remaining:.0f} s left" if done > 0 else ""


def quiet_libraries() -> None:
    """Silences the bars, advice and notices of transformers, diffusers and huggingface_hub.

    Call it before or after importing them, and again after importing another: it sets what they read when
    they are imported, and speaks to those that already are.
    """
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for library in ("transformers", "diffusers"):
        voice: Any = sys.modules.get(f"{library}.utils.logging")
        if voice is not None:
            voice.set_verbosity_error()
            voice.disable_progress_bar()
    hub: Any = sys.modules.get("huggingface_hub.utils")
    if hub is not None:
        hub.disable_progress_bars()
    for name in ("accelerate", "huggingface_hub", "sentence_transformers"):
        logging.getLogger(name).setLevel(logging.ERROR)


def share_the_processor() -> None:
    """Lets waiting threads sleep soon, so that other programs on the machine do not bring the work to a halt.

    torch's threads (OpenMP's) wait for each other by spinning, and a thread that another program has displaced makes
    all others spin for a whole turn: two trainings of the tiny rewriter side by side take more than twenty times as
    long as one after the other. With this they take twice as long, and one alone is no slower. Call it before torch
    is imported; what the user has set stays.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
