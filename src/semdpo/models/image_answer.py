"""The image in a server's answer: its bytes in base64, or at an address; within limits, whatever the server sends."""

from __future__ import annotations

import base64
import binascii
import http.client
import io
import ipaddress
import socket
import struct
import time
import urllib.error
import urllib.request
import warnings
from dataclasses import dataclass
from http.client import HTTPMessage
from typing import IO, TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from semdpo.models.images import rgb

if TYPE_CHECKING:
    from PIL import Image

MOST_BYTES = 64 * 2**20  # of an image's file
MOST_PIXELS = 64 * 10**6  # of an image, 8000 x 8000
FORMATS = ("PNG", "JPEG", "WEBP")  # what OpenAI's output_format may be
CHUNK = 2**16
# What Pillow raises for files that are damaged.
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error)


@dataclass(frozen=True, slots=True)
class Answered:
    """An image, and whether its file was compressed with losses."""

    image: Image.Image
    lossy: bool


def answered(encoded: str) -> Answered:
    """The RGB image in base64.

    Raises:
        ValueError: it is none, or too large; the message gives the reason.
    """
    if len(encoded) > MOST_BYTES * 4 // 3 + 4:
        raise ValueError(_too_many_bytes())
    try:
        data = base64.b64decode("".join(encoded.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("b64_json is not whole base64") from error
    return _decoded(data)


def fetched(address: str, server: str, key: str, timeout: float) -> Answered:
    """The RGB image at an address that a server named.

    A server may name any address, also of machines that only this one reaches. So an address must be of the server's
    own host, or of a public one. The key goes to the server itself only, and redirects are not followed.

    Args:
        address: the address, which may be relative to the server's.
        server: the server's own address.
        key: the key for the server; empty for none.
        timeout: the seconds that all of it may take.

    Raises:
        ValueError: the address is refused, does not answer, or has no image; the message gives the reason.
    """
    whole = urljoin(f"{server}/", address)
    try:
        parts, own = urlsplit(whole), urlsplit(server)
        port, own_port = parts.port, own.port
    except ValueError as error:
        raise ValueError("the address of its image is none") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or not whole.isprintable():
        raise ValueError("the address of its image is none that begins with http:// or https://")
    if parts.hostname != own.hostname:
        _refuse_private(parts.hostname)
    same = (parts.scheme, parts.hostname, port) == (own.scheme, own.hostname, own_port)
    headers = {"User-Agent": "semdpo"} | ({"Authorization": f"Bearer {key}"} if key and same else {})
    return _decoded(_read(urllib.request.Request(whole, headers=headers), parts.hostname, timeout))


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        """Follows none."""


def _read(request: urllib.request.Request, host: str, timeout: float) -> bytes:
    handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
    if host in ("localhost", "127.0.0.1", "::1"):  # a server on this machine is not asked through a proxy
        handlers.append(urllib.request.ProxyHandler({}))
    until, data = time.monotonic() + timeout, bytearray()
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=timeout) as answer:
            while chunk := answer.read(CHUNK):
                data += chunk
                if len(data) > MOST_BYTES:
                    raise ValueError(_too_many_bytes())
                if time.monotonic() > until:
                    raise ValueError(f"the address of its image takes longer than {timeout:g} seconds")
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        raise ValueError(f"the address of its image does not give it ({error})") from error
    return bytes(data)


def _refuse_private(host: str) -> None:
    try:
        found = socket.getaddrinfo(host, None)
    except OSError as error:
        raise ValueError(f"the host of its image cannot be found ({error})") from error
    for *_, address in found:
        if not ipaddress.ip_address(str(address[0]).split("%")[0]).is_global:
            raise ValueError("the address of its image is of a private network, and not of the server's host")


def _decoded(data: bytes) -> Answered:
    from PIL import Image

    if not data:
        raise ValueError("its image is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below is lower
            file = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise ValueError(_too_many_pixels()) from error
    except _DAMAGED as error:
        raise ValueError(f"what it sent is no {', '.join(FORMATS[:-1])} or {FORMATS[-1]} file") from error
    with file:
        if file.width * file.height > MOST_PIXELS:
            raise ValueError(_too_many_pixels())
        lossy = file.format == "JPEG"
        try:
            file.load()
        except _DAMAGED as error:
            raise ValueError(f"its {file.format} file is damaged or incomplete") from error
        return Answered(rgb(file).copy(), lossy)


def _too_many_bytes() -> str:
    return f"its image has more than {MOST_BYTES // 2**20} MiB"


def _too_many_pixels() -> str:
    return f"its image has more than {MOST_PIXELS // 10**6} million pixels"
