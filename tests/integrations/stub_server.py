"""A server on loopback that answers as `semdpo serve` does, or as a test wants it to."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

DRIFT = 0.125
ADDED = ", oil on canvas"
REASON = "the prompt is kept: no rewrite was near enough"


@dataclass(frozen=True)
class Asked:
    """A request."""

    path: str
    body: Any
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Answer:
    """What comes back; a body that is no bytes is sent as JSON."""

    body: Any
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


def semdpo(asked: Asked) -> Answer:
    """Answers as the contract of `semdpo serve` says."""
    if asked.path == "/v1/optimize":
        body = asked.body
        result = record(body["prompt"], body.get("max_drift"))
        return Answer({"model": body.get("model") or "stub", "results": [result]})
    if asked.path == "/v1/chat/completions":
        result = record(asked.body["messages"][-1]["content"], None)
        return Answer(chat(result["rewrite"]).body | {"semdpo": {"results": [result]}})
    return unknown_route(asked)


def record(prompt: str, max_drift: float | None) -> dict[str, Any]:
    kept = max_drift is not None and max_drift < DRIFT
    return {
        "prompt": prompt.strip(),
        "rewrite": prompt.strip() if kept else prompt.strip() + ADDED,
        "drift": 0.0 if kept else DRIFT,
        "reason": REASON if kept else "",
        "kept": prompt.split(),
        "added": [] if kept else ["oil", "on", "canvas"],
        "lost": [],
        "seed": 0,
        "truncated": False,
        "model": "stub",
        "fingerprint": "",
        "spans": [],
    }


def chat(content: Any, **choice: Any) -> Answer:
    """A chat completion as OpenAI's."""
    message = {"role": "assistant", "content": content}
    return Answer({"object": "chat.completion", "choices": [{"message": message, "finish_reason": "stop"} | choice]})


def another_server(content: Any, **choice: Any) -> Callable[[Asked], Answer]:
    """A server with OpenAI's route only, which always answers the same."""

    def answer(asked: Asked) -> Answer:
        return chat(content, **choice) if asked.path == "/v1/chat/completions" else unknown_route(asked)

    return answer


def unknown_route(asked: Asked) -> Answer:
    return failure(404, f"there is no {asked.path}")


def failure(status: int, message: str, **headers: str) -> Answer:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    return Answer({"error": error}, status, headers)


class StubServer:
    """What was asked, and what is answered: ``answer`` may be replaced at any time."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: list[Asked] = []
        self.answer: Callable[[Asked], Answer] = semdpo

    def answers(self, *answers: Answer) -> None:
        """Answers these, one after the other; the last one for ever."""
        left = list(answers)
        self.answer = lambda _: left.pop(0) if len(left) > 1 else left[0]


@contextmanager
def stub_server() -> Iterator[StubServer]:
    """A server in threads of its own, at a free port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            text = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked = Asked(self.path, json.loads(text or "null"), dict(self.headers))
            stub.asked.append(asked)
            answer = stub.answer(asked)
            body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
            self.send_response(answer.status)
            for name, value in {"Content-Length": str(len(body)), **answer.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            self.do_POST()

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """A client that hangs up is no error here."""

    with Server(("127.0.0.1", 0), Handler) as server:
        stub = StubServer(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield stub
        finally:
            server.shutdown()
            thread.join()


def closed_port() -> int:
    """A port of this machine at which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
