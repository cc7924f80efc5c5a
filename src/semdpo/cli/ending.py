"""How a command ends: its exit code, one sentence for an error that the user can cure, Ctrl-C and SIGTERM."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from semdpo.errors import ConfigError, SemdpoError, out_of_memory
from semdpo.progress import say
from semdpo.texts import printable

LONGEST = 2000  # characters of a sentence
_Handler = Callable[[int, FrameType | None], None] | signal.Handlers
RESUMES = "the same command resumes from here"
RESUMES_WITHOUT_FRESH = "the same command without --fresh resumes from here"
STOPPED = 130  # the exit code after Ctrl-C
_ending: dict[str, Any] = {"signal": 0, "remark": None}  # the signal that stopped the command; says how to resume it


@contextmanager
def interruptible(remark: Callable[[], str]) -> Iterator[None]:
    """Surrounds work that can be stopped and resumed; ``remark()`` says how, after it was stopped."""
    _ending["remark"] = remark
    yield
    _ending["remark"] = None


def _stopped(number: int, _: FrameType | None) -> None:
    """Lets SIGTERM (from Slurm, Kubernetes, timeout) end a command as Ctrl-C does."""
    _ending["signal"] = _ending["signal"] or number
    raise KeyboardInterrupt


@contextmanager
def _handled_by(handler: _Handler) -> Iterator[None]:
    """Lets a handler take both signals, except those that somebody else handles or ignores."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    ours = [number for number, other in before.items() if other in (signal.SIG_DFL, signal.default_int_handler)]
    for number in ours:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, before[number])


def finish(app: Callable[..., Any]) -> NoReturn:
    """Runs a command and ends the process. An error that the user can cure becomes one sentence and exit code 2.

    An interrupted command ends with 130 (Ctrl-C) or 143 (SIGTERM).

    Args:
        app: The typer application.
    """
    _ending.update(signal=0, remark=None)
    with _handled_by(_stopped):
        try:
            code = _code(app)
        except KeyboardInterrupt:
            code = STOPPED
        except Exception as error:
            # A library that was interrupted may raise an error of its own.
            code = STOPPED if _ending["signal"] else _explained(error)
    if code == STOPPED:
        with _handled_by(signal.SIG_IGN):  # who presses Ctrl-C twice reads this too
            remark = _ending["remark"]() if _ending["remark"] else ""
            say(f"stopped; {remark}" if remark else "stopped")
        code = 143 if _ending["signal"] == signal.SIGTERM else STOPPED
    sys.exit(code)


def _code(app: Callable[..., Any]) -> int:
    """Runs the command, and gives its exit code; typer turns Ctrl-C into ``STOPPED``."""
    _printable()
    _refuse_unreadable(sys.argv[1:])
    code: Any = app(standalone_mode=False)
    return code if isinstance(code, int) else 0


def _explained(error: Exception) -> int:
    """Prints one sentence about an error that the user can cure, and gives the exit code; raises any other."""
    if isinstance(error, SemdpoError):
        # The sentences about a recipe's settings are lines; in others, a line end is part of a name.
        sentences = str(error).split("\n") if isinstance(error, ConfigError) else [printable(str(error))]
        say("semdpo: " + "\n".join(map(_bounded, sentences)))
    elif out_of_memory(error):
        say("semdpo: there is not enough memory; lower the batch size, or use a machine with more")
    elif isinstance(error, OSError):  # about a path that no check covered beforehand
        name = "" if error.filename is None else f"{_short(str(error.filename))}: "
        say(f"semdpo: {name}{error.strerror or error}; check the path, its permissions and the space on the disk")
    elif hasattr(error, "format_message"):  # click's errors have it; typer may bundle click under another name
        _say_usage(error)
    else:
        raise error
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


def _bounded(sentence: str) -> str:
    """A sentence without the middle of a very long name in it; its cure is at the end."""
    return sentence if len(sentence) <= LONGEST else f"{sentence[: LONGEST // 2]} … {sentence[-LONGEST // 2 :]}"


def _short(text: str) -> str:
    return text if len(text) <= 100 else f"{text[:100]}…"
