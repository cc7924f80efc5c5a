"""A server that keeps the HTTP contract of `semdpo serve` without models; tests of the page script its answers."""

from __future__ import annotations

import io
import json
import re
import threading
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from PIL import Image

import semdpo

STATIC = Path(semdpo.__file__).parent / "serve" / "static"
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
SPAN = re.compile(r"\(\w+:[\d.]+\)|<lora:[^<>]+>|\"[^\"]+\"")
STYLES = ("oil painting, golden light", "soft morning haze", "seen from far above, highly detailed")
KEPT = "the prompt is kept: "
LONG = 290  # characters of a prompt that the renderer does not read to its end

Answer = tuple[int, dict[str, str], dict[str, Any]]


def error(status: int, message: str, kind: str = "invalid_request_error", **headers: str) -> Answer:
    """An answer as the contract's errors; ``headers`` have underscores for hyphens."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return status, named, {"error": {"message": message, "type": kind, "param": None, "code": None}}


class Stub(ThreadingHTTPServer):
    """The server.

    Attributes:
        token: what ``/v1/*`` needs; None needs none.
        renderer: the renderer's name; None: the server was started without one.
        models: name → its largest drift.
        scripted: answers to the next requests for rewrites or images, in place of the usual ones.
        held: (prompt, seed) → an event that the answer waits for.
        asked: the bodies of the requests, with their paths.
    """

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.token: str | None = None
        self.renderer: str | None = None
        self.models: dict[str, float] = {"sem_dpo": 0.3}
        self.scripted: deque[Answer] = deque()
        self.held: dict[tuple[str, int], threading.Event] = {}
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}/"
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def hold(self, prompt: str, *seeds: int) -> threading.Event:
        """The answers to a prompt with these seeds wait until this event is set."""
        event = threading.Event()
        self.held |= {(prompt, seed): event for seed in seeds or range(16)}
        return event

    def stop(self) -> None:
        for event in self.held.values():
            event.set()
        self.shutdown()
        self.server_close()
        self._thread.join()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that cancels a request closes its connection: nothing to report."""

    def rewrite(self, body: dict[str, Any]) -> dict[str, Any]:
        """A record as the contract's; the same for the same request."""
        prompt, seed, model = body["prompt"].strip(), body.get("seed", 0), body.get("model") or next(iter(self.models))
        limit = body.get("max_drift") if body.get("max_drift") is not None else self.models[model]
        spans = [*SPAN.findall(prompt), *body.get("keep", [])]
        rewrite = re.sub(r"\bvery ", "", prompt) + ", " + STYLES[(seed + list(self.models).index(model)) % len(STYLES)]
        drift, reason = 0.08 + 0.03 * (seed % 3), ""
        if "zzyzx" in prompt:
            reason = KEPT + "the encoder does not know 100% of its words"
        elif drift > limit:
            reason = KEPT + "no rewrite was near enough"
        elif any(word in rewrite for word in body.get("banned", [])):
            reason = KEPT + "every rewrite has the banned word 'haze'"
        if reason:
            rewrite, drift = prompt, 0.0
        return {
            "prompt": prompt, "rewrite": rewrite, "drift": drift, "kept": [], "added": [], "lost": [], "reason": reason,
            "seed": seed, "truncated": body.get("length") == "short", "model": model, "fingerprint": "", "spans": spans,
        }  # fmt: skip


class _Handler(BaseHTTPRequestHandler):
    server: Stub

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/healthz":
            return self._json(200, {}, {"status": "ok", "renderer": self.server.renderer})
        if self.path == "/v1/models":
            return self._models()
        name = "index.html" if self.path == "/" else self.path.removeprefix("/static/")
        file = STATIC / name
        if "/" in name or not file.is_file():
            return self._json(*error(404, "there is nothing here"))
        return self._send(200, {"Content-Type": f"{KINDS[file.suffix]}; charset=utf-8"}, file.read_bytes())

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, body))
        if self._is_refused():
            return None
        scripted = self.server.scripted.popleft() if self.server.scripted else None
        if event := self.server.held.get((body["prompt"], body.get("seed", 0))):
            event.wait(30)
        if scripted:
            return self._json(*scripted)
        if self.path == "/v1/render":
            return self._image(body)
        record = self.server.rewrite(body)
        return self._json(200, {}, {"model": record["model"], "results": [record]})

    def _is_refused(self) -> bool:
        token = self.server.token
        if token is None or self.headers["Authorization"] == f"Bearer {token}":
            return False
        self._json(*error(401, "give the server's token", "authentication_error"))
        return True

    def _models(self) -> None:
        if self._is_refused():
            return
        models = [
            {"id": name, "object": "model", "created": 0, "owned_by": "semdpo",
             "semdpo": {"fingerprint": "", "encoder": "tiny:clip", "max_drift": limit}}
            for name, limit in self.server.models.items()
        ]  # fmt: skip
        self._json(200, {}, {"object": "list", "data": models})

    def _image(self, body: dict[str, Any]) -> None:
        if self.server.renderer is None:
            return self._json(*error(404, "start the server with --renderer"))
        buffer = io.BytesIO()
        hue = (len(body["prompt"]) * 37 + body["seed"] * 11) % 256
        size = (96, 96)
        planes = (Image.new("L", size, hue), Image.new("L", size, 110), Image.linear_gradient("L").resize(size))
        Image.merge("HSV", planes).convert("RGB").save(buffer, "PNG")
        truncated = {"X-Semdpo-Truncated": "true"} if len(body["prompt"]) > LONG else {}
        return self._send(200, {"Content-Type": "image/png", **truncated}, buffer.getvalue())

    def _json(self, status: int, headers: dict[str, str], body: dict[str, Any]) -> None:
        self._send(status, {"Content-Type": "application/json", **headers}, json.dumps(body).encode())

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Security-Policy": POLICY, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
