"""Frames between a decoder process and its parent.

The parent trusts nothing that comes back: a hostile image may have taken the child over. So
only the way to the child carries pickles; answers are JSON and raw pixels, held against
limits and types before use.
"""

from __future__ import annotations

import json
import pickle
import socket
import struct
import time
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from imagedex.ingest.interfaces import DecodeLimits
from imagedex.ingest.roots import ImageRoots

_HEADER = struct.Struct(">4sBIQ")
_MAGIC = b"IDXf"
_MAX_META_BYTES = 64 * 1024
_MAX_PAYLOAD_BYTES = 256 * 1024 * 1024


class FrameKind(IntEnum):
    """What a frame says."""

    # To the child:
    SETUP = 1  # payload: pickled ChildSetup.
    DECODE = 2  # payload: the path; meta: the hashes that are known for it.
    DECODE_BYTES = 9  # payload: a picture that lies in no file.
    # To the parent:
    READY = 3  # The child can take work.
    OPENED = 4  # meta: size and mtime_ns of the file that it is about to read.
    DECODED = 5  # meta: facts, shape; payload: the pixels.
    FAILED = 6  # meta: reason, detail, whether the stamp holds.
    BROKEN = 7  # meta: text. The child is of no use, whatever the image.
    KNOWN = 8  # meta: content_hash, size and mtime_ns of a file whose content is known.


@dataclass(frozen=True, slots=True)
class ChildSetup:
    """What a decoder process needs to know before the first image."""

    roots: ImageRoots
    limits: DecodeLimits
    preprocess: bytes  # Pickled by itself, so that its failing to load can be told apart.


class WireError(Exception):
    """The other side sent what no decoder process sends."""


class PeerGone(Exception):
    """The other side closed the connection, or died."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One message."""

    kind: FrameKind
    meta: dict[str, Any]
    payload: bytearray


def send_frame(
    connection: socket.socket,
    kind: FrameKind,
    meta: dict[str, Any] | None = None,
    payload: bytes | memoryview = b"",
) -> None:
    """Send one message whole. Raises OSError."""
    encoded = json.dumps(meta).encode() if meta else b""
    head = _HEADER.pack(_MAGIC, kind, len(encoded), len(payload)) + encoded
    # Together, so that the other side wakes up once; the kernel may take a part of it.
    sent = connection.sendmsg([head, payload])
    if sent < len(head):
        connection.sendall(head[sent:])
    connection.sendall(memoryview(payload)[max(sent - len(head), 0) :])


def send_pickle(connection: socket.socket, kind: FrameKind, value: object) -> None:
    """Send a value to the child. Raises OSError, and what pickling it raises."""
    send_frame(connection, kind, payload=pickle.dumps(value, pickle.HIGHEST_PROTOCOL))


def receive_frame(connection: socket.socket, deadline: float | None = None) -> Frame:
    """Wait for one message, until ``deadline`` on the monotonic clock.

    Raises TimeoutError, PeerGone, and WireError for anything that is no message.
    """
    magic, kind, meta_bytes, payload_bytes = _HEADER.unpack(
        _receive(connection, _HEADER.size, deadline)
    )
    if magic != _MAGIC or meta_bytes > _MAX_META_BYTES or payload_bytes > _MAX_PAYLOAD_BYTES:
        raise WireError(f"not a frame: {magic!r}, {kind}, {meta_bytes}, {payload_bytes}")
    encoded = _receive(connection, meta_bytes, deadline)
    payload = _receive(connection, payload_bytes, deadline)
    try:
        meta = json.loads(encoded) if encoded else {}
        if not isinstance(meta, dict):
            raise WireError("a frame's meta is no object")
        return Frame(FrameKind(kind), meta, payload)
    except (ValueError, RecursionError) as error:
        raise WireError(f"not a frame: {error}") from error


def _receive(connection: socket.socket, size: int, deadline: float | None) -> bytearray:
    buffer = bytearray(size)
    view = memoryview(buffer)
    while view:
        if deadline is not None:
            # Zero would mean "do not wait" and raise another error than running out of time.
            connection.settimeout(max(deadline - time.monotonic(), 0.001))
        try:
            count = connection.recv_into(view)
        except (ConnectionError, BrokenPipeError) as error:
            raise PeerGone("the connection was cut") from error
        if count == 0:
            raise PeerGone("the connection was closed")
        view = view[count:]
    return buffer
