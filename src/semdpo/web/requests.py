"""What a server does with every request: it reads the body within limits, and sends the headers that a page needs."""

from __future__ import annotations

import asyncio
import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import Message, Receive

from semdpo.web.errors import ClientGoneError, RefusedError

BODY = 64 * 1024  # bytes
BODY_SECONDS = 10.0
# So much of a body that is too large is read and thrown away: a client that still sends would not see the answer.
DISCARDED = 16 * 1024 * 1024
# These keep a browser from doing more than the pages need.
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


def is_local(host: str | None) -> bool:
    """Whether the Host header of a request names this machine."""
    try:
        return host is None or is_loopback(urlsplit(f"//{host}").hostname or "")
    except ValueError:
        return False


async def read_body(headers: Headers, receive: Receive) -> bytes:
    """The whole body of a request.

    Args:
        headers: The request's headers.
        receive: Where its body comes from.

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


def replayed(body: bytes, receive: Receive) -> Receive:
    """A ``receive`` that gives the body first."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
