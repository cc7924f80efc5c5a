"""What the server answers when it cannot do what it was asked: a status, and one sentence in OpenAI's form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel
from starlette.responses import JSONResponse

Kind = Literal["invalid_request_error", "authentication_error", "rate_limit_error", "server_error"]
_KINDS: dict[int, Kind] = {401: "authentication_error", 429: "rate_limit_error"}


class ErrorBody(BaseModel):
    """What went wrong."""

    message: str
    type: Kind
    param: str | None = None
    code: str | None = None


class ErrorAnswer(BaseModel):
    """An answer with any status from 400 on."""

    error: ErrorBody


class RefusedError(Exception):
    """A request that the server does not fulfil.

    Args:
        status: The status of the answer, 400 to 599.
        message: One sentence that says what is wrong and what to do.
        param: The field of the request that is wrong.
        code: A word for programs.
        headers: More headers of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code, self.headers = status, message, param, code, headers

    def answer(self) -> JSONResponse:
        """The answer in OpenAI's form."""
        kind = _KINDS.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        body = ErrorBody(message=self.message, type=kind, param=self.param, code=self.code)
        return JSONResponse({"error": body.model_dump()}, self.status, self.headers)


class ClientGoneError(Exception):
    """The client has closed its connection; nobody reads the answer."""


def failed() -> RefusedError:
    """The answer where the code has a defect."""
    return RefusedError(500, "the server has failed; its log says where")


def busy() -> RefusedError:
    """The answer when as many requests wait as may."""
    return RefusedError(
        429, "the server is busy; try again in a second", code="queue_full", headers={"Retry-After": "1"}
    )


def stopping() -> RefusedError:
    """The answer to what still waits when the server stops."""
    return RefusedError(
        503, "the server is stopping; send the request again", code="stopping", headers={"Retry-After": "5"}
    )


def too_slow(seconds: float) -> RefusedError:
    """The answer when the work took longer than it may."""
    return RefusedError(
        504,
        f"the work took longer than {seconds:g} s; ask for less, or start the server with a higher --time-limit",
        code="time_limit",
    )
