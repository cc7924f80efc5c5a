"""Progress of long steps: a bar with the time left on a terminal, a plain line every few seconds elsewhere."""

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
    """A function that a long step calls to report how far it is."""

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Reports that ``done`` of ``total`` units are finished; ``note`` is a short remark such as the loss."""
        ...


def silent(done: int, total: int, note: str = "") -> None:
    """A ``Progress`` that shows nothing."""


def progress_of_part(progress: Progress, start: int, whole: int) -> Progress:
    """A ``Progress`` for one part of a longer step.

    Args:
        progress: the whole step's progress.
        start: the units of the whole step that are finished before this part.
        whole: the units of the whole step.

    Returns:
        A function that reports the part's progress as progress of the whole step.
    """

    def advance(done: int, total: int, note: str = "") -> None:
        progress(start + min(done, total), whole, note)

    return advance


def progress_of_step(progress: Progress, index: int, count: int) -> Progress:
    """A ``Progress`` for one of several steps of equal size.

    Args:
        progress: the progress of all steps together.
        index: the step's place, counted from 0.
        count: the number of steps.

    Returns:
        A function that reports the step's progress as progress of all steps.
    """

    def advance(done: int, total: int, note: str = "") -> None:
        progress(index * total + done, count * total, note)

    return advance


def is_first_process() -> bool:
    """Whether this is the first of several processes (of accelerate or torchrun), which writes files and messages."""
    return os.environ.get("RANK", "0") == "0"


def say(line: str) -> None:
    """Prints a line on stderr; only the first of several processes does.

    Control characters from users' files and names are escaped; see ``texts.printable``.
    """
    if is_first_process():
        print(printable(line, lines=True), file=sys.stderr, flush=True)


def show(text: str) -> None:
    """Prints a command's result on stdout, with control characters escaped."""
    print(printable(text, lines=True), flush=True)


@contextmanager
def bar(title: str) -> Iterator[Progress]:
    """Shows on stderr what is being done, how much of it is finished and how long the rest will take.

    Args:
        title: what is being done, such as ``label: rendering and scoring``.
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
    # transient: the stage's last line says the same in less space
    with Bars(*columns, console=Console(stderr=True), redirect_stdout=False, transient=True) as bars:
        task = bars.add_task(title, total=None, note="")
        before = 0

        def advance(done: int, total: int, note: str = "") -> None:
            nonlocal before
            if done < before:  # the next one of several trainings
                bars.reset(task)
            before = done
            bars.update(task, completed=done, total=total, note=note)

        yield advance


class _PlainLines:
    """Prints a line every few seconds; a shorter step gets none."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.last = time.monotonic()
        # The count and time of the first report. The time left is computed from there, so that work done before a
        # resume and the loading of models do not distort it. A count that falls is the next one of several trainings.
        self.first: tuple[int, float] | None = None
        self.before = 0

    def __call__(self, done: int, total: int, note: str = "") -> None:
        now = time.monotonic()
        if self.first is None or done < self.before:
            self.first = done, now
        self.before = done
        if now - self.last < PLAIN_EVERY or done >= total:
            return
        self.last = now
        left = _left(now - self.first[1], done - self.first[0], total - done)
        say(f"{self.title}: {done}/{total}{left} {note}".rstrip())


def _left(elapsed: float, done: int, remaining: int) -> str:
    return f", {elapsed / done * remaining:.0f} s left" if done > 0 else ""


def quiet_libraries() -> None:
    """Silences the bars, advice and notices of transformers, diffusers and huggingface_hub.

    Call it before or after importing them, and again after importing another one: it sets the environment variables
    that they read on import, and changes the loggers of those that are already imported.
    """
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for library in ("transformers", "diffusers"):
        logger: Any = sys.modules.get(f"{library}.utils.logging")
        if logger is not None:
            logger.set_verbosity_error()
            logger.disable_progress_bar()
    hub: Any = sys.modules.get("huggingface_hub.utils")
    if hub is not None:
        hub.disable_progress_bars()
    for name in ("accelerate", "huggingface_hub", "sentence_transformers"):
        logging.getLogger(name).setLevel(logging.ERROR)


def share_the_cpu() -> None:
    """Lets waiting threads sleep soon, so that other programs on the machine hardly slow the work down.

    torch's (OpenMP's) threads wait for each other by spinning. When another program displaces one of them, all others
    spin for a whole time slice: two trainings of the tiny rewriter at the same time take more than twenty times as
    long as one after the other. With this setting they take twice as long, and a single one is no slower. Call it
    before torch is imported; a value that the user has set is not changed.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
