"""Peers that have no business with the engine, and try."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from imagedex.engine._credentials import Credentials

PATIENCE_SECONDS = 5.0  # Longer than any stranger may be kept.


@dataclass(frozen=True)
class Reception:
    """How a stranger fared."""

    answer: bytes  # What came back before the connection ended, TLS alerts left out.
    seconds: float


def silent(address: tuple[str, int]) -> Reception:
    """Connect and say nothing."""
    with _connect(address) as plain:
        return _read_to_the_end(plain.recv)


def speak(address: tuple[str, int], words: bytes) -> Reception:
    """Connect without TLS and say something."""
    with _connect(address) as plain:
        plain.sendall(words)
        return _read_to_the_end(plain.recv)


def shake_hands(
    address: tuple[str, int], words: bytes, directory: Path, shown: Credentials | None
) -> Reception:
    """Connect by TLS, with a certificate or without, and say something."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if shown is not None:
        (directory / "leaf.pem").write_text(shown.certificate + shown.key)
        context.load_cert_chain(directory / "leaf.pem")
    began = time.monotonic()
    with _connect(address) as plain:
        try:
            with context.wrap_socket(plain) as wrapped:
                # A client believes in the handshake before the server has looked at its
                # certificate (TLS 1.3), so only what it reads tells.
                wrapped.sendall(words)
                return _read_to_the_end(wrapped.recv)
        except (ssl.SSLError, ConnectionError):
            return Reception(b"", time.monotonic() - began)


def _connect(address: tuple[str, int]) -> socket.socket:
    return socket.create_connection(address, PATIENCE_SECONDS)


def _read_to_the_end(receive: Callable[[int], bytes]) -> Reception:
    began, answer = time.monotonic(), b""
    try:
        while data := receive(4096):
            answer += data
    except (ConnectionError, ssl.SSLError, TimeoutError):
        pass  # How long it took tells the one from the other.
    if answer.startswith(b"\x15"):  # The record type of an alert.
        answer = b""
    return Reception(answer, time.monotonic() - began)
