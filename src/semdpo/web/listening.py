"""Opens the address of a server."""

from __future__ import annotations

import errno
import socket

from semdpo.errors import ConfigError
from semdpo.web.requests import is_loopback


def listen(host: str, port: int, exposed: str | None = None) -> socket.socket:
    """A socket that listens.

    Args:
        host: A name or an address.
        port: 0 takes any that is free.
        exposed: What to do about an address that other machines reach, for the refusal; None allows such addresses.

    Raises:
        ConfigError: The host is unknown, not this machine's, or open to others where that is refused; or the port is
            in use or reserved.
    """
    place = f"{host}:{port}"
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (OSError, UnicodeError):
        raise ConfigError(f"there is no host '{host}'; give --host an address of this machine") from None
    if exposed is not None and not is_loopback(str(address[0])):
        raise ConfigError(f"{host} can be reached from other machines; {exposed}, or leave --host out")
    try:
        listening = socket.create_server(address[:2], family=family, backlog=2048)
    except OSError as error:
        cures = {
            errno.EADDRINUSE: "the port is in use; stop what uses it, or choose another with --port",
            errno.EADDRNOTAVAIL: "this machine does not have the address; give --host one that it has",
            errno.EACCES: "the system reserves this port; choose one above 1023 with --port",
        }
        raise ConfigError(f"cannot listen on {place}: {cures.get(error.errno or 0, str(error))}") from None
    # Connections inherit it. Without it, the body of an answer waits 40 ms until the client confirms the head: asyncio
    # sets it only on sockets that were made with the protocol's number, which create_server does not give.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def url(listening: socket.socket) -> str:
    """The address of a listening socket, as a browser takes it."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
