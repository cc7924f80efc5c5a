"""The routes of `semdpo study serve`: each rater's pages behind the rater's link, the organiser's behind another."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from semdpo.data.writers import encoded
from semdpo.errors import DataError, StoreError
from semdpo.study.answers import Answer, Seat, seat, vote_of
from semdpo.study.blinding import public_id, rater_id
from semdpo.study.images import images_of, served_images
from semdpo.study.page import STATIC, online_page
from semdpo.study.plan import Study
from semdpo.study.votes import RefusedVoteError, VoteStore, now
from semdpo.web import strict_json
from semdpo.web.errors import ClientGoneError, RefusedError, failed
from semdpo.web.requests import HEADERS, read_body, replayed

log = logging.getLogger("semdpo.study")

KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
ONLINE = ("rater.js", "online.js", "organiser.js", "style.css")
NOT_STORED = "the answer could not be stored; leave this page open and try again in a minute"
TABLE = (
    *("rater", "trial", "kind", "prompt_id", "question", "choice", "left", "right", "left_method", "right_method"),
    *("seconds", "at"),
)


@dataclass(frozen=True, slots=True)
class _Room:
    """What the routes know: the study, its votes, and who sits behind which link."""

    study: Study
    store: VoteStore
    organiser: str
    seats: Mapping[str, Seat]
    images: Mapping[str, Mapping[str, bytes]]
    static: Mapping[str, bytes]

    def seat(self, request: Request) -> Seat:
        """The seat behind the link of a request."""
        found = self.seats.get(request.path_params["token"])
        if found is None:
            raise HTTPException(404)
        return found

    def admit_organiser(self, request: Request) -> None:
        """Refuses a request whose link is not the organiser's."""
        given = request.path_params["token"].encode("utf-8", "surrogatepass")
        if not hmac.compare_digest(given, self.organiser.encode()):
            raise HTTPException(404)


def organiser_id(study: Study) -> str:
    """The secret part of the organiser's link; the same whenever the study is served."""
    return public_id(study.secret, "organiser", "")


def build(study: Study, store: VoteStore) -> ASGIApp:
    """Builds the application. All images are read into memory, so that every one is served in the same time.

    Args:
        study: the study.
        store: its votes.

    Raises:
        DataError: an image is missing, damaged, or of another size than the rest.
    """
    served = served_images(study)
    seats = {rater_id(study, rater): seat(study, rater) for rater in range(study.plan.raters)}
    room = _Room(
        study,
        store,
        organiser_id(study),
        seats,
        {token: images_of(study, place.rater, served) for token, place in seats.items()},
        {path.name: path.read_bytes() for path in STATIC.iterdir()} | {"rater.html": online_page()},
    )
    handlers = {
        ("/r/{token}", "GET"): _rater_page,
        ("/r/{token}/sheet", "GET"): _sheet,
        ("/r/{token}/consent", "POST"): _consent,
        ("/r/{token}/votes", "POST"): _vote,
        ("/i/{token}/{name}", "GET"): _image,
        ("/o/{token}", "GET"): _organiser_page,
        ("/o/{token}/progress", "GET"): _progress,
        ("/o/{token}/close", "POST"): _close,
        ("/o/{token}/votes.csv", "GET"): _votes_table,
        ("/static/{name}", "GET"): _static,
    }
    app = Starlette(
        routes=[Route(path, partial(handler, room), methods=[method]) for (path, method), handler in handlers.items()],
        exception_handlers={
            RefusedError: _refused, StoreError: _not_stored, HTTPException: _standard, Exception: _defect,
        },
    )  # fmt: skip
    app.router.redirect_slashes = False
    return _Gate(app)


class _Gate:
    """Reads bodies within limits, and sends the same headers with every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update({**HEADERS, "Cache-Control": "no-store"})
            await send(message)

        try:
            body = await read_body(Headers(scope=scope), receive)
        except RefusedError as refused:
            await refused.answer()(scope, receive, guarded)
        except ClientGoneError:
            pass
        else:
            await self._app(scope, replayed(body, receive), guarded)


# ------------------------------------------------------------------------------------------------------- raters


async def _rater_page(room: _Room, request: Request) -> Response:
    room.seat(request)
    return _file(room, "rater.html")


async def _sheet(room: _Room, request: Request) -> Response:
    place = room.seat(request)
    done = await run_in_threadpool(room.store.answered, place.rater)
    agreed = await run_in_threadpool(room.store.consented, place.rater)
    answered = {name: done[trial.name] for name, trial in place.trials.items() if trial.name in done}
    return JSONResponse({**place.sheet, "answered": answered, "consented": agreed})


async def _consent(room: _Room, request: Request) -> Response:
    place = room.seat(request)
    if await _json(request) != {"agreed": True}:
        raise RefusedError(400, 'send {"agreed": true}')
    try:
        await run_in_threadpool(room.store.consent, place.rater, now())
    except RefusedVoteError as error:
        raise RefusedError(409, str(error), code="closed") from None
    return JSONResponse({"consented": True})


async def _vote(room: _Room, request: Request) -> Response:
    place = room.seat(request)
    answer = _answer(await _json(request))
    if not await run_in_threadpool(room.store.consented, place.rater):
        raise RefusedError(403, "agree to take part first", code="consent")
    try:
        vote = vote_of(room.study, place, answer, now())
        await run_in_threadpool(room.store.add, [(vote, answer.answer)])
    except RefusedVoteError as error:
        raise RefusedError(409, str(error), code="refused") from None
    except DataError as error:
        raise RefusedError(400, str(error)) from None
    return JSONResponse({"stored": answer.answer})


def _answer(body: Any) -> Answer:
    try:
        return Answer.model_validate(body)
    except ValidationError as error:
        first = error.errors()[0]
        param = ".".join(map(str, first["loc"]))[:100] or None
        raise RefusedError(400, f"{param or 'the body'}: {first['msg'][0].lower()}{first['msg'][1:]}", param) from None


async def _image(room: _Room, request: Request) -> Response:
    token, name = request.path_params["token"], request.path_params["name"]
    png = room.images.get(token, {}).get(name.removesuffix(".png")) if name.endswith(".png") else None
    if png is None:
        raise HTTPException(404)
    return Response(png, media_type="image/png")


async def _json(request: Request) -> Any:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise RefusedError(400, "send JSON, with the header Content-Type: application/json", code="content_type")
    return strict_json.parse(await request.body())


# ---------------------------------------------------------------------------------------------------- organiser


async def _organiser_page(room: _Room, request: Request) -> Response:
    room.admit_organiser(request)
    return _file(room, "organiser.html")


async def _progress(room: _Room, request: Request) -> Response:
    room.admit_organiser(request)
    plan = room.study.plan
    rows = await run_in_threadpool(room.store.progress, plan.raters)
    raters = [
        {"id": token, "total": len(place.trials) * len(plan.questions), **asdict(rows[place.rater])}
        for token, place in room.seats.items()
    ]
    closed = await run_in_threadpool(lambda: room.store.closed_at)
    return JSONResponse({"title": plan.title, "simulated": plan.simulated, "closed": closed, "raters": raters})


async def _close(room: _Room, request: Request) -> Response:
    room.admit_organiser(request)
    if await _json(request) != {"close": True}:
        raise RefusedError(400, 'send {"close": true}')
    await run_in_threadpool(room.store.close_study)
    log.info("the study is closed")
    return JSONResponse({"closed": True})


async def _votes_table(room: _Room, request: Request) -> Response:
    """The votes with their methods, which nobody sees while votes still come."""
    room.admit_organiser(request)
    if await run_in_threadpool(lambda: room.store.closed_at) is None:
        raise RefusedError(409, "the votes name the methods; close the study first", code="open")
    methods = {image.name: image.method for image in room.study.plan.images}
    trials = {trial.name: trial for trial in room.study.plan.trials}
    rows = []
    for vote in await run_in_threadpool(room.store.votes):
        trial = trials[vote.trial]
        sides = {"left_method": methods[vote.left], "right_method": methods[vote.right]}
        rows.append({**asdict(vote), **sides, "kind": trial.kind, "prompt_id": trial.prompt_id})
    table = encoded(".csv", {name: [row[name] for row in rows] for name in TABLE})
    return Response(table, media_type="text/csv", headers={"Content-Disposition": 'attachment; filename="votes.csv"'})


# ------------------------------------------------------------------------------------------------------- others


async def _static(room: _Room, request: Request) -> Response:
    name = request.path_params["name"]
    if name not in ONLINE:  # no path of a client ever reaches the disk
        raise HTTPException(404)
    return _file(room, name)


def _file(room: _Room, name: str) -> Response:
    return Response(room.static[name], media_type=KINDS[Path(name).suffix])


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    return error.answer()


async def _not_stored(_: Request, error: Exception) -> Response:
    log.error("%s", error)  # the organiser's; a rater learns no path
    return RefusedError(503, NOT_STORED, code="not_stored", headers={"Retry-After": "5"}).answer()


async def _standard(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    said = {404: "there is no such address", 405: "this address does not take this method"}
    message = said.get(error.status_code, "the request cannot be read")
    return RefusedError(error.status_code, f"{message}; check the link", headers=error.headers).answer()


async def _defect(_: Request, __: Exception) -> Response:
    return failed().answer()
