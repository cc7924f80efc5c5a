"""Who may ask, how much a request may hold, and the headers that keep a browser from doing more than the page needs."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from semdpo.serve.errors import ClientGoneError, RefusedError

BODY = 64 * 1024  # bytes
BODY_SECONDS = 10.0
# So much of a body that is too large is read and thrown away: a client that still sends would not see the answer.
DISCARDED = 16 * 1024 * 1024
OPEN = ("/healthz", "/openapi.json", "/")  # and /static/*: what anybody may read
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def is_loopback(host: str) -> bool:
    """Whether a host's name or address is this machine's own, which no other machine reaches."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Gate:
    """Lets a request through to the application: the right token, a body that is not too large or too slow.

    The whole body is read here, so that the limit holds for chunked bodies, too. Without a token, a request must name
    this machine as its host. Otherwise a web page could let its own name point here, and read the answers.

    Args:
        app: The application.
        token: What ``/v1/*`` and ``/metrics`` ask for; None lets everybody on this machine in.
    """

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app = app
        self._token = None if token is None else token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if scope["path"].startswith("/v1/"):
                    headers.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            headers = Headers(scope=scope)
            self._refuse_stranger(scope["path"], headers)
            body = await _body(headers, receive)
        except RefusedError as refused:
            await refused.answer()(scope, receive, guarded)
            return
        await self._app(scope, _replayed(body, receive), guarded)

    def _refuse_stranger(self, path: str, headers: Headers) -> None:
        if self._token is None:
            if not _is_local(headers.get("host")):
                raise RefusedError(400, "the request names another host; call this server by localhost", code="host")
        elif path not in OPEN and not path.startswith("/static/"):
            scheme, _, given = headers.get("authorization", "").partition(" ")
            right = hmac.compare_digest(given.strip().encode(), self._token)
            if scheme.lower() != "bearer" or not right:
                raise RefusedError(
                    401,
                    "the token is missing or wrong; send the header Authorization: Bearer TOKEN",
                    code="invalid_api_key",
                    headers={"WWW-Authenticate": "Bearer"},
                )


def _is_local(host: str | None) -> bool:
    try:
        return host is None or is_loopback(urlsplit(f"//{host}").hostname or "")
    except ValueError:
        return False


async def _body(headers: Headers, receive: Receive) -> bytes:
    """The whole body.

    Raises:
        RefusedError: It is too large, or comes too slowly.
        ClientGoneError: The client left before its end.
    """
    too_large = RefusedError(413, f"the body is larger than {BODY // 1024} KiB; send less", code="too_large")
    declared = headers.get("content-length", "0")
    if "expect" in headers and int(declared) > BODY:  # such a client has not sent its body yet
        raise too_large
    body, size = bytearray(), 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            more = True
            while more and size <= DISCARDED:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGoneError
                chunk = message.get("body", b"")
                size += len(chunk)
                if size <= BODY:
                    body += chunk
                more = message.get("more_body", False)
    except TimeoutError:
        raise RefusedError(408, f"the body did not come within {BODY_SECONDS:g} s; send it at once") from None
    if size > BODY:
        raise too_large
    return bytes(body)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A ``receive`` that gives the body first."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
