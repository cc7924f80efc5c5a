"""Opens the address, and runs the application until a signal stops it."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import time
from contextlib import suppress

import uvicorn

from semdpo.errors import ConfigError
from semdpo.serve.app import Service
from semdpo.serve.security import is_loopback

GRACE = 10.0  # seconds that running batches get when the server stops


def listen(host: str, port: int, token: str | None) -> socket.socket:
    """A socket that listens.

    Args:
        host: A name or an address.
        port: 0 takes any that is free.
        token: What clients must send; None is allowed on addresses that only this machine reaches.

    Raises:
        ConfigError: The host is unknown, not this machine's, or open to others without a token; or the port is in use
            or reserved.
    """
    place = f"{host}:{port}"
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (OSError, UnicodeError):
        raise ConfigError(f"there is no host '{host}'; give --host an address of this machine") from None
    if token is None and not is_loopback(str(address[0])):
        raise ConfigError(
            f"{host} can be reached from other machines; set a token in the variable SEMDPO_TOKEN (or name another "
            "variable with --token-env), or leave --host out"
        )
    try:
        return socket.create_server(address[:2], family=family, backlog=2048)
    except OSError as error:
        cures = {
            errno.EADDRINUSE: "the port is in use; stop what uses it, or choose another with --port",
            errno.EADDRNOTAVAIL: "this machine does not have the address; give --host one that it has",
            errno.EACCES: "the system reserves this port; choose one above 1023 with --port",
        }
        raise ConfigError(f"cannot listen on {place}: {cures.get(error.errno or 0, str(error))}") from None


def url(listening: socket.socket) -> str:
    """The address of a listening socket, as a browser takes it."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


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
