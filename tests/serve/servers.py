"""Servers on ephemeral ports of this machine, and models that do what a test wants."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from semdpo.errors import DataError, ModelError
from semdpo.prompt_optimizer import Optimized, Request
from semdpo.serve import server
from semdpo.serve.app import Service, build
from semdpo.serve.contract import Optimizer, PageRenderer
from semdpo.serve.settings import Settings
from semdpo.web.listening import url

PATIENCE = 120  # seconds; what takes longer hangs


class Optimizer1:
    """Adds a style to each prompt, and remembers its batches.

    While ``held()``, a batch does not end; prompts with ``defect``, ``refuse`` or ``broken`` in them fail.
    """

    def __init__(self, model: str = "one") -> None:
        self.model, self.fingerprint, self.encoder_name, self.max_drift = model, "f" * 64, "tiny:clip", 0.5
        self.batches: list[list[Request]] = []
        self.entered, self.free = threading.Semaphore(0), threading.Event()
        self.free.set()

    reads = 75

    def optimize_all(self, requests: Sequence[Request]) -> list[list[Optimized]]:
        self.batches.append(list(requests))
        self.entered.release()
        assert self.free.wait(PATIENCE)
        for request in requests:
            for word, error in (("defect", RuntimeError), ("refuse", DataError), ("broken", ModelError)):
                if word in request.prompt:
                    raise error(f"about {request.prompt}")
        return [[self._variant(request, index) for index in range(request.n)] for request in requests]

    def _variant(self, request: Request, index: int) -> Optimized:
        prompt, words = request.prompt.strip(), tuple(request.prompt.split())
        if "far" in words:
            return Optimized(
                prompt, prompt, 0.0, words, (), (), "the prompt is kept: too far, é", request.seed, False, "m", "f"
            )
        rewrite, long = f"{prompt}, style {request.seed + index}", "endless" in words
        return Optimized(prompt, rewrite, 0.25, words, ("style",), (), "", request.seed, long, "m", self.fingerprint)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """While inside, a batch that starts does not end."""
        self.free.clear()
        try:
            yield
        finally:
            self.free.set()


class Renderer1:
    """Renders squares of one colour."""

    def __init__(self) -> None:
        self.entered, self.free = threading.Semaphore(0), threading.Event()
        self.free.set()

    def render(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        self.entered.release()
        assert self.free.wait(PATIENCE)
        return [Image.new("RGB", (8, 8), (seed % 256, 0, 0)) for seed in seeds]

    def too_long(self, prompts: Sequence[str]) -> NDArray[np.bool_]:
        return np.array([len(prompt) > 100 for prompt in prompts], np.bool_)


@dataclass(frozen=True)
class Running:
    """A server that runs in a thread."""

    url: str
    service: Service
    server: server.Server

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        return httpx.request(method, self.url + path, timeout=PATIENCE, verify=False, trust_env=False, **more)

    def optimize(self, prompt: str, **more: Any) -> httpx.Response:
        return self.ask("POST", "/v1/optimize", json={"prompt": prompt, **more})

    def metric(self, line: str) -> float:
        """The value of a line of the metrics; 0 where there is none."""
        for each in self.ask("GET", "/metrics").text.splitlines():
            name, _, value = each.rpartition(" ")
            if name == line:
                return float(value)
        return 0.0

    def waits(self, length: int, queue: int = 0) -> None:
        """Waits until so many requests wait."""
        until(lambda: len(self.service.queues[queue]) == length)


def until(condition: Any) -> None:
    """Waits until a condition holds."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.005)


@contextlib.contextmanager
def running(
    models: Mapping[str, Optimizer], renderer: PageRenderer | None = None, **settings: Any
) -> Iterator[Running]:
    """A real server; afterwards, its threads and connections have ended."""
    service = build(models, None if renderer is None else ("squares", renderer), Settings(**settings))
    before = set(threading.enumerate())
    with server.listen("127.0.0.1", 0, settings.get("token")) as listening:
        started = Running(url(listening), service, server.Server(service))
        thread = threading.Thread(target=started.server.run, args=([listening],))
        thread.start()
        try:
            until(lambda: started.server.started)
            yield started
        finally:
            started.server.should_exit = True
            thread.join(PATIENCE)
    assert not thread.is_alive()
    assert all(queue.ended(PATIENCE) for queue in service.queues)
    until(lambda: set(threading.enumerate()) <= before)


def raw(port: int, *parts: bytes) -> socket.socket:
    """A connection to which some bytes have been written."""
    connection = socket.create_connection(("127.0.0.1", port), PATIENCE)
    for part in parts:
        connection.sendall(part)
    return connection


def post(path: str, body: bytes, *headers: str) -> bytes:
    """The bytes of a request."""
    kind = "Content-Type: application/json"
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", kind, f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body
