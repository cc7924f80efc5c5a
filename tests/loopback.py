"""A real server on this machine that answers as OpenAI's do, and as a test says, faults included."""

from __future__ import annotations

import base64
import io
import json
import socket
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image

ROUTES = ("/v1/chat/completions", "/v1/images/generations")
AT_ONCE = {"retry-after-ms": "1"}  # a client that repeats the request need not pause


@dataclass(frozen=True)
class Asked:
    """A request: ``time`` is how often its prompt and seed came before."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    time: int

    @property
    def prompt(self) -> str:
        return self.body.get("prompt") or self.body["messages"][-1]["content"] if self.body else ""


@dataclass(frozen=True)
class Reply:
    status: int = 200
    body: bytes | dict[str, Any] | list[Any] = b""
    headers: dict[str, str] = field(default_factory=dict)
    dropped: bool = False  # the connection is closed instead


def chat(content: object, end: str | None = "stop", **message: Any) -> Reply:
    choice = {"index": 0, "message": {"role": "assistant", "content": content} | message, "finish_reason": end}
    return Reply(body={"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]})


def drawn(image: Image.Image, file_format: str = "PNG", **entry: Any) -> Reply:
    buffer = io.BytesIO()
    image.save(buffer, file_format)
    return of_bytes(buffer.getvalue(), **entry)


def of_bytes(data: bytes, **entry: Any) -> Reply:
    return Reply(body={"created": 1, "data": [{"b64_json": base64.b64encode(data).decode()} | entry]})


def told(*top: tuple[str, float], chosen: str = "Yes") -> Reply:
    """An answer of one token, with the logarithms of the most probable tokens' probabilities."""
    first = {"token": chosen, "logprob": 0.0, "top_logprobs": [{"token": t, "logprob": logp} for t, logp in top]}
    choice = {"message": {"role": "assistant", "content": chosen}, "logprobs": {"content": [first]}}
    return Reply(body={"choices": [choice | {"index": 0, "finish_reason": "length"}]})


def error(status: int, message: str = "no", **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, {"error": {"message": message, "type": "t", "param": None, "code": None}}, AT_ONCE | named)


def echo(asked: Asked) -> Reply:
    return chat(f"{asked.prompt}, seed {asked.body['seed']}")


class Loopback:
    """Starts when it is made; ``with`` ends it."""

    def __init__(
        self, answer: Callable[[Asked], Reply] = echo, models: Reply | tuple[str, ...] = ("m",), port: int = 0
    ) -> None:
        self.files: dict[str, Reply] = {}  # what it answers to GET
        self.answer, self.asked, self.most, self._open = answer, list[Asked](), 0, 0
        self.listed = models if isinstance(models, Reply) else Reply(body={"data": [{"id": name} for name in models]})
        self._times: Counter[str] = Counter()
        self._lock, self._connections = threading.Lock(), set[socket.socket]()
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self._server.daemon_threads, self._server.block_on_close = True, False
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def __enter__(self) -> Loopback:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        """Ends the server and all its connections, as if its process had ended."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        with self._lock:
            for connection in self._connections:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue  # it has ended before

    def _replied(self, path: str, headers: dict[str, str], body: dict[str, Any]) -> Reply:
        with self._lock:
            key = json.dumps([path, body.get("messages"), body.get("prompt"), body.get("seed")])
            asked = Asked(path, headers, body, self._times[key])
            self._times[key] += 1
            self.asked.append(asked)
            self._open += 1
            self.most = max(self.most, self._open)
        try:
            if path == "/v1/models":
                return self.listed
            if path in self.files:
                return self.files[path]
            return self.answer(asked) if path in ROUTES else Reply(404, {"detail": "Not Found"})
        finally:
            with self._lock:
                self._open -= 1

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        loopback = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                with loopback._lock:
                    loopback._connections.add(self.connection)

            def finish(self) -> None:
                with loopback._lock:
                    loopback._connections.discard(self.connection)
                super().finish()

            def handle(self) -> None:
                try:
                    super().handle()
                except OSError:
                    self.close_connection = True  # the client, or the test, has closed it

            def do_GET(self) -> None:
                self._reply()

            def do_POST(self) -> None:
                self._reply()

            def _reply(self) -> None:
                sent = self.rfile.read(int(self.headers.get("content-length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                reply = loopback._replied(self.path, headers, json.loads(sent) if sent else {})
                if reply.dropped:
                    self.close_connection = True
                    return
                plain = isinstance(reply.body, bytes)
                content = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
                self.send_response(reply.status)
                kind = "text/html" if plain else "application/json"
                for name, value in (
                    {"content-type": kind, "content-length": str(len(content))} | reply.headers
                ).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Prints nothing."""

        return Handler
