"""Who may ask."""

from __future__ import annotations

import hmac

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from semdpo.web.errors import RefusedError
from semdpo.web.requests import HEADERS, is_local, read_body, replayed

OPEN = ("/healthz", "/openapi.json", "/")  # and /static/*: what anybody may read


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
            body = await read_body(headers, receive)
        except RefusedError as refused:
            await refused.answer()(scope, receive, guarded)
            return
        await self._app(scope, replayed(body, receive), guarded)

    def _refuse_stranger(self, path: str, headers: Headers) -> None:
        if self._token is None:
            if not is_local(headers.get("host")):
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
