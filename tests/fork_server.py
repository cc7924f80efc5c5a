"""Python processes that need not import torch, transformers and the like again, which takes each of them five seconds.

A server imports these libraries once and forks a process for every command. This package is not among them: each
process imports it from nothing. A command is started through a small program that takes what ``python`` takes, so that
shells and scripts can call it; it hands its arguments, folder, environment, input and output to the server.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path

# Whatever most commands import. What is not installed is left out.
LIBRARIES = [
    *("numpy", "pandas", "pyarrow.parquet", "PIL.Image", "pydantic", "torch", "scipy.stats", "matplotlib.pyplot"),
    *("statsmodels.api", "tokenizers", "accelerate", "transformers.models.gpt2.modeling_gpt2", "transformers.trainer"),
    *("transformers.models.clip.modeling_clip", "diffusers.pipelines.stable_diffusion", "sentence_transformers"),
]
# Only the standard library, and no site-packages: it starts in 20 milliseconds.
CLIENT = """#!{python} -SE
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    asked = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(server, [len(asked).to_bytes(8, "big")], [0, 1, 2])
    server.sendall(asked)
    answer = server.recv(1)
sys.exit(answer[0] if answer else "the server of tests/fork_server.py has ended")
"""


@contextlib.contextmanager
def fork_server(environment: Mapping[str, str]) -> Iterator[Path]:
    """Runs a server that imports the libraries under ``environment``; yields a program that stands for ``python``."""
    asked = [sys.executable, "-m", "tests.fork_server"]
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are too long for the name of a socket
        address, client = Path(folder) / "socket", Path(folder) / "python"
        client.write_text(CLIENT.format(python=sys.executable, address=str(address)))
        client.chmod(0o755)
        with subprocess.Popen(
            [*asked, str(address)], cwd=Path(__file__).parents[1], env=environment, stdout=subprocess.PIPE, text=True
        ) as server:
            try:
                assert server.stdout is not None
                assert server.stdout.readline() == "ready\n"
                yield client
            finally:
                server.terminate()


def _serve(address: str) -> None:
    for name in LIBRARIES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    gc.freeze()  # as in conftest.py
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that answer
        print("ready", flush=True)
        while True:
            client, _ = listening.accept()
            with client:
                if os.fork() == 0:  # a process that starts others and waits for them must not keep them waiting
                    listening.close()
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    _answer(client)
                    os._exit(0)


def _answer(client: socket.socket) -> None:
    """Forks one process and sends its exit code."""
    length, streams, *_ = socket.recv_fds(client, 8, 3)
    asked = b""
    while len(asked) < int.from_bytes(length, "big"):
        asked += client.recv(65536)
    arguments, folder, environment = json.loads(asked)
    child = os.fork()
    if child == 0:
        os._exit(_become(arguments, folder, environment, streams))
    for stream in streams:
        os.close(stream)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    client.sendall(bytes([code % 256]))


def _become(arguments: list[str], folder: str, environment: dict[str, str], streams: list[int]) -> int:
    """Does in the forked process what ``python`` with these arguments does; returns the exit code."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    # New objects: the server's own remember whether its files could seek.
    sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False, errors="backslashreplace")
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    code = 0
    while arguments[0] in ("-u", "-B"):  # nothing is kept back at the end, whatever the options say
        arguments = arguments[1:]
    try:
        if arguments[0] == "-m":
            sys.argv, sys.path[0] = arguments[1:], folder
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv, sys.path[0] = arguments, str(Path(arguments[0]).resolve().parent)
            runpy.run_path(arguments[0], run_name="__main__")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    _serve(sys.argv[1])
