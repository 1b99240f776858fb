"""A decoder process that a hostile image has taken over: its parent believes nothing.

In place of the interpreter stands a program that speaks the protocol and then answers what
the test says.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Protocol

import pytest

from imagedex.core.errors import EngineError
from imagedex.core.images import FailureReason, FileStamp, ImageFailure
from imagedex.ingest import DecodedImage, DecodeLimits, ImageRoots, ProcessImageDecoder
from imagedex.testing.preprocesses import Square

_PROGRAM = """#!{python}
import json, os, socket, sys
from imagedex.ingest._wire import FrameKind, receive_frame, send_frame

connection = socket.socket(fileno=int(sys.argv[-1]))
receive_frame(connection)
send_frame(connection, FrameKind.READY)
facts = {{"content_hash": "0" * 64, "size": 1, "mtime_ns": 1, "width": 2, "height": 1,
         "format": "PNG", "shape": [1, 2]}}
while True:
    receive_frame(connection)
    {answer}
"""


class Decode(Protocol):
    """Decode an image by a child that answers so."""

    def __call__(
        self, answer: str, *, shape: tuple[int, ...] | None = None
    ) -> DecodedImage | ImageFailure: ...


@pytest.fixture
def decode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Decode:
    def decode(answer: str, *, shape: tuple[int, ...] | None = None) -> DecodedImage | ImageFailure:
        program = tmp_path / "python"
        program.write_text(_PROGRAM.format(python=sys.executable, answer=answer))
        program.chmod(0o755)
        decoder = ProcessImageDecoder(
            roots=ImageRoots([tmp_path]),
            preprocess=Square(8),
            limits=DecodeLimits(timeout_seconds=30),
            shape=shape,
        )
        with monkeypatch.context() as patch:
            patch.setattr(sys, "executable", str(program))
            try:
                (outcome,) = decoder.decode(["/a.png"])
            finally:
                decoder.close()
        return outcome

    return decode


OPENED = 'send_frame(connection, FrameKind.OPENED, {"size": 1, "mtime_ns": 1}); '


def test_an_honest_answer_is_taken(decode: Decode) -> None:
    outcome = decode(OPENED + "send_frame(connection, FrameKind.DECODED, facts, b'ab')")
    assert isinstance(outcome, DecodedImage)
    assert outcome.pixels.tolist() == [[97, 98]]


@pytest.mark.parametrize(
    "answer",
    [
        "send_frame(connection, FrameKind.DECODED, facts, b'abc')",
        "send_frame(connection, FrameKind.DECODED, facts | {'shape': [-1, -2]}, b'ab')",
        "send_frame(connection, FrameKind.DECODED, facts | {'content_hash': 'x; DROP'}, b'ab')",
        "send_frame(connection, FrameKind.DECODED, facts | {'width': '2'}, b'ab')",
        "send_frame(connection, FrameKind.DECODED, {}, b'ab')",
        "send_frame(connection, FrameKind.FAILED, {'reason': 'boredom'})",
        "send_frame(connection, FrameKind.OPENED, {'size': None})",
        "send_frame(connection, FrameKind.READY)",
        "connection.sendall(b'!' * 100000)",
    ],
)
def test_a_senseless_answer_costs_the_image_it_was_given_for(decode: Decode, answer: str) -> None:
    outcome = decode(OPENED + answer)
    assert isinstance(outcome, ImageFailure)
    assert outcome.reason is FailureReason.DECODER_CRASHED


@pytest.mark.parametrize(
    "facts",
    [
        "'width': 2**31",
        "'height': 2**31",
        "'width': 0",
        "'height': True",
        "'width': 2.0",
        "'size': 2**63",
        "'size': -1",
        "'size': float('inf')",
        "'mtime_ns': 2**63",
        "'mtime_ns': -2**63 - 1",
        "'mtime_ns': 1e400",
        "'mtime_ns': float('nan')",
        "'mtime_ns': 1.5",
        "'mtime_ns': '1'",
        "'mtime_ns': None",
        "'format': 7",
        "'format': []",
        "'content_hash': None",
        "'shape': None",
        "'shape': 2",
        "'shape': 'ab'",
        "'shape': {'1': 2}",
        "'shape': [2.0]",
        "'shape': [True, 2]",
        "'shape': [1] * 64 + [2]",
        "'shape': [2] + [1] * 10_000",
    ],
)
def test_facts_that_nothing_could_store_cost_the_image_alone(decode: Decode, facts: str) -> None:
    answer = f"send_frame(connection, FrameKind.DECODED, facts | {{{facts}}}, b'ab')"
    outcome = decode(OPENED + answer)
    assert isinstance(outcome, ImageFailure)
    assert outcome.reason is FailureReason.DECODER_CRASHED
    assert len(outcome.detail) < 1000


@pytest.mark.parametrize("shape", ["[0, 10**100]", "[0, 2**31]", "[0] + [2**31 - 1] * 9"])
def test_no_pixels_in_a_shape_beyond_measure_cost_the_image_alone(
    decode: Decode, shape: str
) -> None:
    answer = f"send_frame(connection, FrameKind.DECODED, facts | {{'shape': {shape}}}, b'')"
    outcome = decode(OPENED + answer)
    assert isinstance(outcome, ImageFailure)
    assert outcome.reason is FailureReason.DECODER_CRASHED


@pytest.mark.parametrize(
    "stamp", ["'size': 2**63", "'mtime_ns': 2**63", "'mtime_ns': 1e400", "'size': True"]
)
def test_a_stamp_that_nothing_could_store_costs_the_image_alone(decode: Decode, stamp: str) -> None:
    meta = f"{{'size': 1, 'mtime_ns': 1}} | {{{stamp}}}"
    outcome = decode(f"send_frame(connection, FrameKind.OPENED, {meta})")
    assert isinstance(outcome, ImageFailure)
    assert outcome.reason is FailureReason.DECODER_CRASHED
    assert outcome.stamp is None


def test_facts_at_their_bounds_are_taken(decode: Decode) -> None:
    bounds = "'width': 2**31 - 1, 'height': 1, 'size': 2**63 - 1, 'mtime_ns': -2**63"
    answer = f"send_frame(connection, FrameKind.DECODED, facts | {{{bounds}}}, b'ab')"
    outcome = decode(OPENED + answer)
    assert isinstance(outcome, DecodedImage)
    assert outcome.facts.width == 2**31 - 1
    assert outcome.facts.stamp == FileStamp(2**63 - 1, -(2**63))


@pytest.mark.parametrize("detail", ["7", "None", "[[[]]]", "'x' * 60_000"])
def test_a_detail_is_a_text_of_bounded_length(decode: Decode, detail: str) -> None:
    meta = f"{{'reason': 'damaged', 'detail': {detail}, 'keeps_stamp': True}}"
    outcome = decode(OPENED + f"send_frame(connection, FrameKind.FAILED, {meta})")
    assert isinstance(outcome, ImageFailure)
    assert len(outcome.detail) <= 1000


def test_pixels_of_another_shape_than_the_expected_cost_the_image_alone(decode: Decode) -> None:
    answer = OPENED + "send_frame(connection, FrameKind.DECODED, facts, b'ab')"
    assert isinstance(decode(answer, shape=(1, 2)), DecodedImage)
    outcome = decode(answer, shape=(2, 1))
    assert isinstance(outcome, ImageFailure)
    assert outcome.reason is FailureReason.DECODER_CRASHED
    assert "(2, 1)" in outcome.detail


def test_a_path_and_a_text_of_its_own_do_not_pass(decode: Decode) -> None:
    meta = r"{'reason': 'damaged', 'detail': 'a\ud800b\0', 'keeps_stamp': True, 'path': '/etc'}"
    outcome = decode(OPENED + f"send_frame(connection, FrameKind.FAILED, {meta})")
    assert isinstance(outcome, ImageFailure)
    assert outcome.image_path == "/a.png"
    assert outcome.detail == r"a\ud800b\0"


def test_dying_before_the_file_is_open_is_not_held_against_it(decode: Decode) -> None:
    with pytest.raises(EngineError, match="died 3 times before they opened"):
        decode("os._exit(1)")


def test_dying_once_before_the_file_is_open_costs_nothing(decode: Decode, tmp_path: Path) -> None:
    marker = os.fspath(tmp_path / "died")
    answer = (
        f"os.path.exists({marker!r}) or (open({marker!r}, 'w').close(), os._exit(1)); "
        + OPENED
        + "send_frame(connection, FrameKind.DECODED, facts, b'ab')"
    )
    assert isinstance(decode(answer), DecodedImage)
