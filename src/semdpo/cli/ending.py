"""How a command ends: its exit code, one sentence for an error that the user can cure, Ctrl-C and SIGTERM."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from semdpo.errors import ConfigError, SemdpoError
from semdpo.progress import say

RESUMES = "the same command resumes from here"
RESUMES_WITHOUT_FRESH = "the same command without --fresh resumes from here"
_ending = {"signal": 0, "remark": ""}  # the signal that stopped the command, and how to resume it


@contextmanager
def interruptible(remark: Callable[[], str]) -> Iterator[None]:
    """Surrounds work that can be stopped and resumed; ``remark()`` says how, after it was stopped."""
    try:
        yield
    except KeyboardInterrupt:
        _ending["remark"] = remark()
        raise


def _terminated(number: int, _: FrameType | None) -> None:
    """Lets SIGTERM (from Slurm, Kubernetes, timeout) end a command as Ctrl-C does."""
    _ending["signal"] = number
    raise KeyboardInterrupt


def finish(app: Callable[..., Any]) -> NoReturn:
    """Runs a command and ends the process. An error that the user can cure becomes one sentence and exit code 2.

    An interrupted command ends with 130 (Ctrl-C) or 143 (SIGTERM).

    Args:
        app: The typer application.
    """
    _ending.update(signal=0, remark="")
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
        say(f"stopped; {_ending['remark']}" if _ending["remark"] else "stopped")
        code = 143 if _ending["signal"] else 130
    sys.exit(code)


def _code(app: Callable[..., Any]) -> int:
    """Runs the command, and gives its exit code."""
    try:
        _printable()
        _refuse_unreadable(sys.argv[1:])
        code: Any = app(standalone_mode=False)
        return code if isinstance(code, int) else 0
    except SemdpoError as error:
        say(f"semdpo: {error}")
    except MemoryError:
        say("semdpo: there is not enough memory; lower the batch size, or use a machine with more")
    except OSError as error:  # about a path that no check covered beforehand
        name = "" if error.filename is None else f"{_short(str(error.filename))}: "
        say(f"semdpo: {name}{error.strerror or error}; check the path, its permissions and the space on the disk")
    except Exception as error:
        if not hasattr(error, "format_message"):  # click's errors have it; typer may bundle click under another name
            raise
        _say_usage(error)
    return 2


def _say_usage(error: Any) -> None:
    """Prints one sentence about a wrong option, or the whole help if no argument was given."""
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError" and context is not None:
        print(context.get_help(), file=sys.stderr)
        return
    path = "semdpo" if context is None else context.command_path
    message = " ".join(error.format_message().split()).rstrip(".")
    say(f"semdpo: {message}; see `{path} --help`")


def _printable() -> None:
    """Lets every text be printed: file names with bytes that are no text, and letters that the terminal lacks."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _refuse_unreadable(arguments: list[str]) -> None:
    for argument in arguments:
        try:
            argument.encode("utf-8")
        except UnicodeEncodeError as error:
            shown = argument.encode("utf-8", "backslashreplace").decode()
            raise ConfigError(f"'{_short(shown)}' is not UTF-8; write it as UTF-8, or rename the file") from error
        if "\0" in argument:
            raise ConfigError(f"{_short(argument)!r} holds a null character; remove it")


def _short(text: str) -> str:
    return text if len(text) <= 100 else f"{text[:100]}…"
