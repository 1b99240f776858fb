"""Mutual TLS for Dask, and nothing but TLS beyond this machine.

A peer without a leaf of our authority never gets as far as a Dask connection, whose messages may
be unpickled. Dask leaves open how long and how many strangers may try: its handshake has no time
limit (``distributed.comm.tcp.TLSListener``). The listener here has both.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import distributed
from distributed.comm.addressing import parse_host_port
from distributed.comm.registry import backends
from distributed.comm.tcp import TCPBackend, TLSBackend, TLSListener

from imagedex.core.errors import EngineError
from imagedex.engine._credentials import Credentials

HANDSHAKE_SECONDS = 1.5
"""After this a peer that has not shown its certificate is turned away; ours try again."""

MAX_HANDSHAKES = 64
"""Connections at once on which no certificate was shown yet; one more costs the oldest."""

_REPORT_SECONDS = 60.0  # A stranger that tries all day must not fill the log.

_log = logging.getLogger(__name__)


class EngineSecurity(distributed.Security):
    """Dask's TLS settings: both sides show a leaf of the authority, and nobody else is accepted.

    The contexts are made once: Dask would make new ones, and write the key to a file, each time.
    """

    def __init__(self, credentials: Credentials) -> None:
        super().__init__(require_encryption=True)  # type: ignore[no-untyped-call] # Dask's.
        self._listening = _context(ssl.Purpose.CLIENT_AUTH, credentials)
        self._connecting = _context(ssl.Purpose.SERVER_AUTH, credentials)

    def get_listen_args(self, role: str) -> dict[str, Any]:  # noqa: ARG002 - one for all roles.
        """Return what Dask listens with."""
        return {"ssl_context": self._listening, "require_encryption": True}

    def get_connection_args(self, role: str) -> dict[str, Any]:  # noqa: ARG002 - likewise.
        """Return what Dask connects with."""
        return {
            "ssl_context": self._connecting,
            "require_encryption": True,
            "extra_conn_args": {},
        }


class GuardedTLSListener(TLSListener):
    """Turns away who does not show a certificate of ours, soon and without work."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call] # Dask's.
        self._waiting: dict[Any, None] = {}  # The streams in their handshake, oldest first.
        self._turned_away = 0
        self._reported_at = -_REPORT_SECONDS

    def _get_server_args(self, **connection_args: Any) -> dict[str, Any]:
        arguments: dict[str, Any] = super()._get_server_args(**connection_args)  # type: ignore[no-untyped-call] # Dask's.
        if arguments["ssl_options"].verify_mode is not ssl.CERT_REQUIRED:
            raise EngineError(
                "The engine would listen without asking its peers for a certificate; whoever "
                "reaches it could run code. It is not started."
            )
        return arguments

    async def _prepare_stream(self, stream: Any, address: str) -> Any:
        """Return the stream when its peer is one of ours, else None."""
        if len(self._waiting) >= MAX_HANDSHAKES:
            # Ours need milliseconds, so it is likely a stranger who has waited longest.
            oldest = next(iter(self._waiting))
            del self._waiting[oldest]
            oldest.close()
        self._waiting[stream] = None
        try:
            await asyncio.wait_for(stream.wait_for_handshake(), HANDSHAKE_SECONDS)
        except TimeoutError:
            self._turn_away(stream, address, f"no handshake within {HANDSHAKE_SECONDS:g} s")
            return None
        except OSError as error:
            self._turn_away(stream, address, str(getattr(error, "real_error", None) or error))
            return None
        finally:
            self._waiting.pop(stream, None)
        return stream

    def _turn_away(self, stream: Any, address: str, reason: str) -> None:
        stream.close()
        self._turned_away += 1
        now = time.monotonic()
        if now - self._reported_at >= _REPORT_SECONDS:
            _log.warning(
                "%d connections to the engine were turned away, the last from %s: %s.",
                self._turned_away,
                address,
                reason,
            )
            self._reported_at, self._turned_away = now, 0


class _GuardedTLSBackend(TLSBackend):
    _listener_class = GuardedTLSListener


class _LoopbackBackend(TCPBackend):
    """Plain TCP, which leaves this machine for nobody."""

    def get_listener(self, loc: str, *args: Any, **kwargs: Any) -> Any:
        host = parse_host_port(loc)[0]
        if not is_loopback(host):
            raise EngineError(
                f"The engine would listen on {host or 'all interfaces'} without TLS; whoever "
                "reaches it could run code. It is not started."
            )
        return super().get_listener(loc, *args, **kwargs)  # type: ignore[no-untyped-call] # Dask's.


def guard_listeners() -> None:
    """Have all that Dask listens on in this process guarded; for good."""
    backends["tls"] = _GuardedTLSBackend()
    backends["tcp"] = _LoopbackBackend()
    for scheme in ("ws", "wss", "ucx"):
        backends.pop(scheme, None)


def is_loopback(host: str) -> bool:
    """Say whether an address is one that only this machine reaches; a name is not known to be."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _context(purpose: ssl.Purpose, credentials: Credentials) -> ssl.SSLContext:
    # With authorities of our own given, those of the system are not loaded.
    context = ssl.create_default_context(purpose, cadata=credentials.trusted)
    context.minimum_version = ssl.TLSVersion.TLSv1_3  # Both ends are ours.
    # A leaf is of the engine, whatever address its host has today.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    with _path_of(credentials.certificate + credentials.key) as path:
        context.load_cert_chain(path)
    return context


@contextmanager
def _path_of(content: str) -> Iterator[str]:
    """Give a path under which text can be read that lies in memory alone."""
    descriptor = os.memfd_create("imagedex-leaf", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "w", closefd=False) as file:
            file.write(content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
