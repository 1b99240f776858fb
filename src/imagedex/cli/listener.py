"""The socket that the server listens on."""

from __future__ import annotations

import socket

from imagedex.cli.failures import CommandFailed
from imagedex.settings import ServerSettings


def bind(server: ServerSettings) -> socket.socket:
    """Return a bound socket that does not listen yet: until jobs run, clients are refused.

    Raises CommandFailed.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            server.host, server.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise cannot_listen(server, error) from error
    return listener


def cannot_listen(server: ServerSettings, error: OSError) -> CommandFailed:
    """Return the error that tells which address cannot be had, and why."""
    return CommandFailed(
        f"Cannot listen on {server.host}:{server.port}: {error.strerror or error}. "
        "Choose another address with --host and --port."
    )
