"""Opens the address, and runs the application until a signal stops it."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from contextlib import suppress

import uvicorn

from semdpo.serve.app import Service
from semdpo.web import listening

GRACE = 10.0  # seconds that running batches get when the server stops
OPEN_TO_OTHERS = "set a token in the variable SEMDPO_TOKEN (or name another variable with --token-env)"


def listen(host: str, port: int, token: str | None) -> socket.socket:
    """A socket that listens; without a token, on addresses that only this machine reaches.

    Args:
        host: A name or an address.
        port: 0 takes any that is free.
        token: What clients must send; None where nobody needs one.

    Raises:
        ConfigError: As ``semdpo.web.listening.listen`` raises.
    """
    return listening.listen(host, port, OPEN_TO_OTHERS if token is None else None)


class Server(uvicorn.Server):
    """uvicorn, which answers what still waits before it stops.

    Args:
        service: The application and its queues.
    """

    def __init__(self, service: Service) -> None:
        super().__init__(
            uvicorn.Config(
                service.application,
                http="h11",  # the same parser and loop wherever it runs, whatever else is installed
                loop="asyncio",
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,  # it would show whole addresses; ``metrics.Watch`` has its own
                server_header=False,
                timeout_graceful_shutdown=int(GRACE) + 5,
            )
        )
        self._queues = service.queues

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Refuses what waits, finishes what runs if it takes no longer than ``GRACE``, and stops."""
        loop = asyncio.get_running_loop()
        for queue in self._queues:
            queue.close()
            loop.call_later(GRACE, queue.abandon)
        await super().shutdown(sockets)


def run(service: Service, listening: socket.socket) -> bool:
    """Serves until Ctrl-C or SIGTERM.

    Args:
        service: The application and its queues.
        listening: The socket.

    Returns:
        Whether all threads have ended; one that is in the middle of a long batch has not.
    """
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    with suppress(KeyboardInterrupt):  # uvicorn repeats the signal once it has stopped
        Server(service).run(sockets=[listening])
    until = time.monotonic() + 1
    return all(queue.ended(max(0.0, until - time.monotonic())) for queue in service.queues)
