"""How a command ends: exit codes, one sentence for what a user can cure, and what Ctrl-C and SIGTERM do."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from semdpo.errors import ConfigError, SemdpoError
from semdpo.progress import say

GOES_ON = "the same command goes on from here"
ANEW = "the same command without --fresh goes on from here"
_ending = {"signal": 0, "says": ""}  # which signal stopped the command, and what it said then


@contextmanager
def interruptible(remark: Callable[[], str]) -> Iterator[None]:
    """Around work that can be stopped and gone on with; ``remark`` says how, when it was stopped."""
    try:
        yield
    except KeyboardInterrupt:
        _ending["says"] = remark()
        raise


def _terminated(number: int, _: FrameType | None) -> None:
    """SIGTERM (of Slurm, Kubernetes, timeout) ends a command as Ctrl-C does."""
    _ending["signal"] = number
    raise KeyboardInterrupt


def finish(app: Callable[..., Any]) -> NoReturn:
    """Runs a command and ends the process; whatever a user can cure becomes one sentence and exit code 2.

    Interrupted, the code is 130 (Ctrl-C) or 143 (SIGTERM).

    Args:
        app: typer's.
    """
    _ending.update(signal=0, says="")
    before = signal.getsignal(signal.SIGTERM)
    if before == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _terminated)
    try:
        code = _code(app)
    except KeyboardInterrupt:
        code = 130
    finally:
        if before == signal.SIG_DFL:
            signal.signal(signal.SIGTERM, before)
    if code == 130:
        say(f"stopped; {_ending['says']}" if _ending["says"] else "stopped")
        code = 143 if _ending["signal"] else 130
    sys.exit(code)


def _code(app: Callable[..., Any]) -> int:
    """The exit code of the command that was given."""
    try:
        _printable()
        _refuse_unreadable(sys.argv[1:])
        code: Any = app(standalone_mode=False)
        return code if isinstance(code, int) else 0
    except SemdpoError as error:
        say(f"semdpo: {error}")
    except MemoryError:
        say("semdpo: there is not enough memory; lower the batch size, or use a machine with more")
    except OSError as error:  # of a place that nobody looked at before
        name = "" if error.filename is None else f"{_short(str(error.filename))}: "
        say(f"semdpo: {name}{error.strerror or error}; check the path, its permissions and the space on the disk")
    except Exception as error:
        if not hasattr(error, "format_message"):  # of click, which typer may bring along under another name
            raise
        _say_usage(error)
    return 2


def _say_usage(error: Any) -> None:
    """One sentence for a wrong option; the whole help where nothing was given."""
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError" and context is not None:
        print(context.get_help(), file=sys.stderr)
        return
    path = "semdpo" if context is None else context.command_path
    said = " ".join(error.format_message().split()).rstrip(".")
    say(f"semdpo: {said}; see `{path} --help`")


def _printable() -> None:
    """Names of files may hold bytes that no encoding has, and a terminal may lack letters: neither is a failure."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _refuse_unreadable(arguments: list[str]) -> None:
    for each in arguments:
        try:
            each.encode("utf-8")
        except UnicodeEncodeError as error:
            shown = each.encode("utf-8", "backslashreplace").decode()
            raise ConfigError(f"'{_short(shown)}' is not UTF-8; write it as UTF-8, or rename the file") from error
        if "\0" in each:
            raise ConfigError(f"{_short(each)!r} holds a null character; remove it")


def _short(text: str) -> str:
    return text if len(text) <= 100 else f"{text[:100]}…"
