"""Processes in which a fault happens at a known place of a run: a server that forks one for every command.

A place is what the process is about to do, such as ``rename label/part-00001.parquet`` in the run's folder, or ``load
renderer``. Python announces every change of files to its audit hooks, so that nothing in the package is replaced.
"""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

ANNOUNCED = "tests.faults"  # the audit event of a place that changes no file
BALLAST = "ballast"  # the file that fills a disk, beside the run's folder
_CHANGES = {"os.rename": "rename", "os.remove": "remove", "os.mkdir": "mkdir", "os.rmdir": "rmdir"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def place(run: Path, event: str, given: tuple[Any, ...]) -> str | None:
    """What an audit event announces: a change of a file in the run's folder, or another place; None is neither."""
    if event == ANNOUNCED:
        return str(given[0])
    if event == "open":
        if not isinstance(given[0], str) or not given[2] & _WRITING:
            return None
        verb, path = "open", given[0]
    elif event in _CHANGES:
        verb, path = _CHANGES[event], os.fspath(given[1] if event == "os.rename" else given[0])
        if event == "os.mkdir" and Path(path).is_dir():
            return None
        if event in ("os.remove", "os.rmdir") and given[-1] != -1:  # relative to an open folder
            path = str(Path(f"/proc/self/fd/{given[-1]}").readlink() / path)
    else:
        return None
    inside = Path(str(path)).is_relative_to(run)
    return f"{verb} {Path(str(path)).relative_to(run).as_posix()}" if inside else None


def arm(run: Path, fault: dict[str, Any]) -> None:
    """Lets the fault happen before the process is at a matching place for the n-th time."""
    match, act, left, main = re.compile(fault["match"]), fault["act"], fault["nth"], threading.current_thread()
    busy = False

    def hook(event: str, given: tuple[Any, ...]) -> None:
        nonlocal left, busy
        if event != ANNOUNCED and event != "open" and event not in _CHANGES:
            return
        if busy or threading.current_thread() is not main or (found := place(run, event, given)) is None:
            return
        if left > 0 and match.search(found):
            left -= 1
            if left == 0:
                busy = True
                _ACTS[act](run, fault)
                busy = False
        if left == 0 and act == "full" and found.startswith(("open", "mkdir")):
            raise OSError(errno.ENOSPC, "No space left on device")
        if act == "list":
            os.write(fault["handle"], f"{found}\n".encode())

    if act == "list":
        fault["handle"] = os.open(fault["said"], os.O_WRONLY | os.O_CREAT, 0o666)
    sys.addaudithook(hook)


def _wait(run: Path, fault: dict[str, Any]) -> None:
    """Waits for the signal that the test sends."""
    Path(fault["said"]).touch()
    time.sleep(120)


def _kill(run: Path, fault: dict[str, Any]) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _fill(run: Path, fault: dict[str, Any]) -> None:
    """Fills the disk to its last byte."""
    with suppress(OSError), (run.parent / BALLAST).open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def _nothing(run: Path, fault: dict[str, Any]) -> None:
    """What follows is done by the hook itself."""


_ACTS: dict[str, Callable[[Path, dict[str, Any]], None]] = {
    "wait": _wait,
    "kill": _kill,
    "fill": _fill,
    "full": _nothing,
    "list": _nothing,
}


def _become(job: dict[str, Any]) -> None:
    """Does what a command does, with this run's stand-ins."""
    from semdpo.cli import main
    from tests.faults import stand_ins

    os.setsid()  # a terminal's group of processes
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    handle = os.open(job["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    stand_ins.take_part(job["said"], job["delay"])
    sys.argv = ["semdpo", *job["arguments"]]
    if job["fault"]:
        arm(Path(job["run"]), job["fault"])
    main()


def _serve() -> None:
    """Reads jobs from stdin, one a line; answers each with the id of its process, and then with its exit code."""
    import semdpo.cli.app
    import semdpo.pipeline
    import semdpo.reporting.collect
    import semdpo.reporting.page
    import semdpo.training.fine_tune
    import semdpo.training.losses
    import semdpo.training.preference  # noqa: F401
    from tests.faults import stand_ins  # noqa: F401

    os.fsync = lambda _: None  # as in conftest.py
    print("ready", flush=True)
    while line := sys.stdin.readline():
        child = os.fork()
        if child == 0:
            _become(json.loads(line))
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    _serve()
