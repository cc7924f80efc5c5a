"""Serves a study until a signal stops it."""

from __future__ import annotations

import logging
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

import uvicorn

if TYPE_CHECKING:
    from starlette.types import ASGIApp

GRACE = 5  # seconds that open requests get when the server stops


def server(application: ASGIApp) -> uvicorn.Server:
    """The server of an application; nothing that it logs has a rater's link."""
    return uvicorn.Server(
        uvicorn.Config(
            application,
            http="h11",  # the same parser and loop wherever it runs, whatever else is installed
            loop="asyncio",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,  # it would show the links
            server_header=False,
            timeout_graceful_shutdown=GRACE,
        )
    )


def run(application: ASGIApp, listening: socket.socket) -> None:
    """Serves until Ctrl-C or SIGTERM.

    Args:
        application: the application.
        listening: the socket.
    """
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    with suppress(KeyboardInterrupt):  # uvicorn repeats the signal once it has stopped
        server(application).run(sockets=[listening])
