"""What the server counts, for Prometheus, and its log of requests."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from semdpo.web.errors import ClientGoneError, failed

log = logging.getLogger("semdpo.serve")

GONE = 499  # the status in log and metrics where the client left before its answer; nginx's number
_QUIET = ("/healthz", "/metrics")  # asked for every few seconds: logged only where they fail


class Metrics:
    """The server's counters, in a registry of their own.

    Attributes:
        requests: Requests by route and status.
        seconds: The time from a request to the end of its answer, by route.
        batches: The number of requests in a batch, by queue.
        results: Variants by outcome: ``rewritten``, or ``kept`` where the guard returned the user's prompt.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("semdpo_requests", "Requests.", ["route", "status"], registry=self.registry)
        self.seconds = Histogram(
            "semdpo_request_seconds", "Seconds from a request to its answer.", ["route"], registry=self.registry
        )
        self.batches = Histogram(
            "semdpo_batch_size",
            "Requests in a batch.",
            ["queue"],
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=self.registry,
        )
        self.results = Counter("semdpo_results", "Variants returned.", ["outcome"], registry=self.registry)
        self._waiting = Gauge("semdpo_queue_length", "Requests that wait.", ["queue"], registry=self.registry)
        for outcome in ("rewritten", "kept"):  # so that both are there from the start
            self.results.labels(outcome)

    def watch(self, queue: str, length: Callable[[], int]) -> None:
        """Adds a queue, whose length is asked for whenever the metrics are read."""
        self._waiting.labels(queue).set_function(length)

    def text(self) -> bytes:
        """All values in Prometheus's text format."""
        return generate_latest(self.registry)


class Watch:
    """Counts and logs every request, and answers 500 where the code has a defect.

    The log has routes, statuses and times only. A path that is no route is not logged, as it may be anything; nor is
    the message of an unexpected error, which may quote a prompt.

    Args:
        app: The application.
        metrics: The counters.
        routes: The paths of the application.
        log_prompts: Whether messages of unexpected errors are logged, too.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, routes: frozenset[str], log_prompts: bool) -> None:
        self._app, self._metrics, self._routes, self._log_prompts = app, metrics, routes, log_prompts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, began = 0, time.perf_counter()

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, counted)
        except ClientGoneError:
            status = GONE
        except asyncio.CancelledError:  # uvicorn's last means when it stops; the client's connection is closed
            status = status or GONE
        except Exception as error:
            self._log_defect(error)
            if not status:
                await failed().answer()(scope, receive, counted)
        self._note(scope, status or 500, time.perf_counter() - began)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route = self._route(scope["path"])
        self._metrics.requests.labels(route, status).inc()
        self._metrics.seconds.labels(route).observe(seconds)
        if route not in _QUIET or status >= 400:
            log.info("%s %s %d %.0f ms", scope["method"], route, status, seconds * 1000)

    def _route(self, path: str) -> str:
        if path in self._routes:
            return path
        return "/static/{name}" if path.startswith("/static/") else "other"

    def _log_defect(self, error: Exception) -> None:
        if self._log_prompts:
            log.error("a request has failed", exc_info=error)
            return
        frames = "".join(traceback.format_tb(error.__traceback__))
        log.error("a request has failed with %s; its message is hidden without --log-prompts\n%s", type(error), frames)
