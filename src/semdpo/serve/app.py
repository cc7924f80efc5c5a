"""The routes of the server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import ASGIApp

from semdpo import __version__
from semdpo.errors import ConfigError, DataError, SemdpoError, did_you_mean
from semdpo.serve import chat, wire
from semdpo.serve.batching import Batcher
from semdpo.serve.contract import Optimizer, PageRenderer
from semdpo.serve.metrics import Metrics, Watch
from semdpo.serve.security import Gate
from semdpo.serve.settings import Settings
from semdpo.serve.work import Image, Record, Rendering, Rewriting, rendering, rewriting
from semdpo.web import strict_json
from semdpo.web.errors import ClientGoneError, ErrorAnswer, RefusedError, failed

STATIC = Path(str(files("semdpo.serve"))) / "static"
IMAGES_AT_A_TIME = 4
ERRORS: dict[int | str, dict[str, Any]] = {"4XX": {"model": ErrorAnswer}, "5XX": {"model": ErrorAnswer}}

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Service:
    """A server's application, with what must be stopped when it ends.

    Attributes:
        application: The ASGI application.
        queues: The queues, each with its thread.
    """

    application: ASGIApp
    queues: tuple[Batcher[Any, Any], ...]


class _JsonRequest(Request):
    """A request whose body is JSON of the strict kind."""

    async def json(self) -> Any:
        if not hasattr(self, "_value"):
            self._value = strict_json.parse(await self.body())
        return self._value


class _JsonRoute(APIRoute):
    """A route that reads nothing but JSON."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        inner = super().get_route_handler()

        async def handler(request: Request) -> Response:
            strict = _JsonRequest(request.scope, request.receive)
            if request.method == "POST":
                kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
                if kind != "application/json":
                    raise RefusedError(
                        400, "send JSON, with the header Content-Type: application/json", code="content_type"
                    )
                await strict.json()  # an empty body, too, is wrong; FastAPI would not look at it
            return await inner(strict)

        return handler


def build(models: Mapping[str, Optimizer], renderer: tuple[str, PageRenderer] | None, settings: Settings) -> Service:
    """Builds the application.

    Args:
        models: Name → optimizer; the first is used where a request names none.
        renderer: The renderer's name and the renderer; None serves no images.
        settings: Limits, token and log.
    """
    metrics = Metrics()
    rewrites: Batcher[Rewriting, list[Record]] = Batcher(
        rewriting(models, metrics, settings.log_prompts),
        group=lambda asked: asked.model,
        batch=settings.batch,
        seen=metrics.batches.labels("rewrite").observe,
        queue=settings.queue,
        seconds=settings.time_limit,
    )
    queues: list[Batcher[Any, Any]] = [rewrites]
    metrics.watch("rewrite", rewrites.__len__)
    images: Batcher[Rendering, Image] | None = None
    if renderer is not None:
        images = Batcher(
            rendering(models, renderer[1], renderer[0], settings.log_prompts),
            batch=IMAGES_AT_A_TIME,
            seen=metrics.batches.labels("render").observe,
            queue=settings.queue,
            seconds=settings.time_limit,
        )
        queues.append(images)
        metrics.watch("render", images.__len__)
    app = _empty_app(queues)
    _add_rewriting(app, models, rewrites)
    _add_rendering(app, models, images)
    _add_facts(app, models, None if renderer is None else renderer[0], metrics)
    _add_page(app)
    _add_errors(app)
    routes = frozenset(route.path for route in app.routes if isinstance(route, APIRoute)) | {"/openapi.json"}
    return Service(Watch(Gate(app, settings.token), metrics, routes, settings.log_prompts), tuple(queues))


def _empty_app(queues: list[Batcher[Any, Any]]) -> FastAPI:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        for queue in queues:
            queue.start()
        yield
        for queue in queues:
            queue.close()

    app = FastAPI(
        title="semdpo",
        version=__version__,
        description="Rewrites prompts for text-to-image models, with a measured drift.",
        lifespan=lifespan,
        docs_url=None,  # the pages load their scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        responses=ERRORS,
        # Where OpenTelemetry is installed, FastAPI would send it the messages of errors, which may quote prompts.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    app.router.route_class = _JsonRoute
    return app


def _add_rewriting(app: FastAPI, models: Mapping[str, Optimizer], rewrites: Batcher[Rewriting, list[Record]]) -> None:
    @app.post("/v1/optimize")
    async def optimize(body: wire.OptimizeBody, request: Request, response: Response) -> wire.OptimizeAnswer:
        """Rewrites a prompt, and says how far each variant drifts."""
        asked = Rewriting(_known(body.model, models), body.request())
        records = await _unless_gone(request, rewrites.submit(asked))
        response.headers.update(chat.headers(records))
        return wire.OptimizeAnswer.model_validate({"model": asked.model, "results": records})

    @app.post(
        "/v1/chat/completions",
        response_model=wire.ChatAnswer,
        responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
    )
    async def complete(body: wire.ChatBody, request: Request, response: Response) -> Any:
        """Rewrites a conversation's last user message, as OpenAI's interface answers; with stream, in pieces."""
        name = _known(body.model, models)
        most = models[name].reads
        asked = Rewriting(name, chat.request(body, most))
        records = await _unless_gone(request, rewrites.submit(asked))
        about = chat.headers(records)
        if body.stream:
            return StreamingResponse(chat.chunks(asked.model, records), 200, about, "text/event-stream")
        response.headers.update(about)
        return chat.answer(asked.model, records)


def _add_rendering(app: FastAPI, models: Mapping[str, Optimizer], images: Batcher[Rendering, Image] | None) -> None:
    @app.post(
        "/v1/render",
        response_class=Response,
        responses={200: {"content": {"image/png": {"schema": {"type": "string", "format": "binary"}}}}},
    )
    async def render(body: wire.RenderBody, request: Request) -> Response:
        """Renders a prompt; the image's metadata says how it was made."""
        if images is None:
            raise RefusedError(404, "this server renders no images; start it with --renderer MODEL", code="no_renderer")
        asked = Rendering(body.prompt, body.original, body.seed, _known(body.model, models))
        rendered = await _unless_gone(request, images.submit(asked))
        headers = {"X-Semdpo-Truncated": "true"} if rendered.truncated else {}
        return Response(rendered.png, 200, headers, "image/png")


def _add_facts(app: FastAPI, models: Mapping[str, Optimizer], renderer: str | None, metrics: Metrics) -> None:
    created = int(time.time())

    @app.get("/v1/models")
    async def list_models() -> wire.ModelList:
        """The models that this server has."""
        return wire.ModelList(data=[_entry(name, model, created) for name, model in models.items()])

    @app.get("/healthz")
    async def health() -> wire.Health:
        """Answers while the server runs, however busy its models are."""
        return wire.Health(renderer=renderer)

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def count() -> Response:
        """The counters, for Prometheus."""
        from prometheus_client import CONTENT_TYPE_LATEST

        return Response(metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _entry(name: str, model: Optimizer, created: int) -> wire.ModelEntry:
    facts = wire.ModelFacts(fingerprint=model.fingerprint, encoder=model.encoder_name, max_drift=model.max_drift)
    return wire.ModelEntry(id=name, created=created, semdpo=facts)


def _add_page(app: FastAPI) -> None:
    pages = {path.name: path for path in STATIC.iterdir() if path.is_file()}

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(pages["index.html"])

    @app.get("/static/{name}", include_in_schema=False)
    async def static(name: str) -> FileResponse:
        if name not in pages:  # no path of a client ever reaches the disk
            raise HTTPException(404)
        return FileResponse(pages[name])


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(RefusedError)
    async def refused(_: Request, error: RefusedError) -> JSONResponse:
        return error.answer()

    @app.exception_handler(SemdpoError)
    async def unusable(_: Request, error: SemdpoError) -> JSONResponse:
        of_user = isinstance(error, (DataError, ConfigError))
        return RefusedError(400 if of_user else 503, str(error), code="unusable" if of_user else "model").answer()

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]  # its value is left out: it may be a prompt
        param = ".".join(map(str, first["loc"][1:]))[:100] or None
        message = f"{first['msg'][0].lower()}{first['msg'][1:]}"
        return RefusedError(400, f"{param or 'the body'}: {message}", param, first["type"]).answer()

    @app.exception_handler(Exception)
    async def defect(_: Request, __: Exception) -> JSONResponse:
        return failed().answer()  # the error itself comes to ``metrics.Watch``, which logs it

    @app.exception_handler(HTTPException)
    async def standard(_: Request, error: HTTPException) -> JSONResponse:
        message = {404: "there is no such address", 405: "this address does not take this method"}
        said = message.get(error.status_code, "the request cannot be read")
        return RefusedError(error.status_code, f"{said}; see /openapi.json", headers=error.headers).answer()


def _known(name: str | None, models: Mapping[str, Optimizer]) -> str:
    """The name of the model that a request wants.

    Raises:
        RefusedError: The server does not have it.
    """
    if name is None:
        return next(iter(models))
    if name not in models:
        known = did_you_mean(name[:100], models)
        raise RefusedError(404, f"this server has no model of that name{known}", "model", "model_not_found")
    return name


async def _unless_gone(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """Waits for work, and cancels it when the client closes its connection.

    Raises:
        ClientGoneError: The client left first.
    """
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGoneError
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
