"""Frames between a decoder process and its parent."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagedex.ingest._wire import (
    FrameKind,
    PeerGone,
    WireError,
    receive_frame,
    send_frame,
)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = socket.socketpair()
    with near, far:
        yield near, far


Pair = tuple[socket.socket, socket.socket]


def soon() -> float:
    return time.monotonic() + 30


def test_frames_arrive_as_they_were_sent(pair: Pair) -> None:
    near, far = pair
    payload = bytes(range(256)) * 8000  # More than a socket's buffer holds.
    sender = threading.Thread(
        target=send_frame, args=(far, FrameKind.DECODED, {"a": [1, "ü"]}, memoryview(payload))
    )
    sender.start()
    frame = receive_frame(near, soon())
    sender.join()
    assert frame.kind is FrameKind.DECODED
    assert frame.meta == {"a": [1, "ü"]}
    assert bytes(frame.payload) == payload


def test_frames_without_content_follow_each_other(pair: Pair) -> None:
    near, far = pair
    for kind in FrameKind:
        send_frame(far, kind)
    assert [receive_frame(near, soon()).kind for _ in FrameKind] == list(FrameKind)


def test_silence_ends_at_the_deadline(pair: Pair) -> None:
    near, far = pair
    with pytest.raises(TimeoutError):
        receive_frame(near, time.monotonic() + 0.01)
    far.sendall(b"IDXf")  # A frame that stops within its head.
    with pytest.raises(TimeoutError):
        receive_frame(near, time.monotonic() - 1)


def test_the_end_of_the_peer_is_told_from_nonsense(pair: Pair) -> None:
    near, far = pair
    far.sendall(b"IDXf")
    far.close()
    with pytest.raises(PeerGone):
        receive_frame(near, soon())


@pytest.mark.parametrize(
    "head",
    [
        b"Hello, I am a C library." + bytes(9),
        b"IDXf" + bytes([5]) + b"\xff\xff\xff\xff" + bytes(8),  # A meta of 4 GB.
        b"IDXf" + bytes([5]) + bytes(4) + b"\xff" * 8,  # A payload of 16 EB.
        b"IDXf" + bytes([99]) + bytes(12),  # A kind that is none.
        b"IDXf" + bytes([5]) + bytes([0, 0, 0, 1]) + bytes(8) + b"{",
        b"IDXf" + bytes([5]) + bytes([0, 0, 0, 1]) + bytes(8) + b"7",
        b"IDXf" + bytes([5]) + bytes([0, 0, 0, 1]) + bytes(8) + b"\xff",
        b"IDXf" + bytes([5]) + bytes([0, 0, 0x80, 0]) + bytes(8) + b"[" * 0x8000,
    ],
)
def test_nonsense_is_refused_before_memory_is_taken_for_it(pair: Pair, head: bytes) -> None:
    near, far = pair
    far.sendall(head)
    with pytest.raises(WireError):
        receive_frame(near, soon())


@given(garbage=st.binary(max_size=200))
def test_random_bytes_raise_nothing_else(garbage: bytes) -> None:
    near, far = socket.socketpair()
    with near, far:
        far.sendall(garbage)
        far.shutdown(socket.SHUT_WR)
        with pytest.raises((WireError, PeerGone)):
            receive_frame(near, soon())
