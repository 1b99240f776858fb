"""The parent's hold on one decoder process."""

from __future__ import annotations

import contextlib
import math
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

import numpy as np

from imagedex.core.errors import EngineError, ModelError
from imagedex.core.images import FailureReason, FileStamp, ImageFacts, ImageFailure
from imagedex.ingest._wire import (
    ChildSetup,
    Frame,
    FrameKind,
    PeerGone,
    WireError,
    receive_frame,
    send_frame,
    send_pickle,
)
from imagedex.ingest.interfaces import DecodedImage, KnownImage
from imagedex.ingest.unusable import printable_path

_PROGRAM = "imagedex.ingest._decoder_process"

_START_SECONDS = 120.0
"""How long a process may take to import what it needs, on a machine that is busy."""

_KILL_SECONDS = 5.0
"""How long a killed process may take to be gone; a lost network drive can hold it for ever."""

_STARTS_PER_IMAGE = 3

_SHA256 = re.compile(r"[0-9a-f]{64}")

_MAX_DIMENSIONS = 32
_MAX_DETAIL_CHARACTERS = 1000

# What the catalog's columns and the segments' fields can hold.
_INT32_MAX = 2**31 - 1
_INT64_MAX = 2**63 - 1

# One process uses one core: the pool uses the others, and each thread of a numeric library
# would take its share of the address space that the limit allows.
_SINGLE_THREADED = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class DecoderChild:
    """One decoder process, started when it is needed and replaced when it is lost.

    One thread at a time may call ``decode`` and ``end``; ``interrupt`` any thread at any time.
    With ``shape`` an answer whose pixels have another one is not believed.
    """

    def __init__(self, setup: ChildSetup, *, shape: tuple[int, ...] | None = None) -> None:
        self._setup = setup
        self._shape = shape
        self._lock = threading.Lock()  # Guards the next two against interrupt().
        self._interrupted = False
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None

    def decode(
        self, image_path: str, known_hashes: Collection[str] = ()
    ) -> DecodedImage | KnownImage | ImageFailure:
        """Return the outcome for one image, whatever it does to the process.

        It is KnownImage, and nothing is decoded, for a file with one of ``known_hashes``.

        Raises EngineError when no process can be started, or after ``interrupt``; ModelError
        when the preprocessing step is of no use.
        """
        try:
            encoded = image_path.encode()
        except UnicodeEncodeError:
            return ImageFailure(
                printable_path(image_path),
                FailureReason.NAME_NOT_UTF8,
                "The file cannot be indexed: its name is not valid UTF-8.",
            )
        known = {"known": list(known_hashes)} if known_hashes else None
        exchange = partial(_Exchange, image_path, self._shape, known_hashes)
        return self._ask(exchange, FrameKind.DECODE, known, encoded)

    def decode_bytes(self, data: bytes) -> DecodedImage | ImageFailure:
        """Return the outcome for a picture that lies in no file; its path is ``""``.

        Raises as ``decode`` does.
        """
        exchange = partial(_Exchange, "", self._shape, ())
        outcome = self._ask(exchange, FrameKind.DECODE_BYTES, None, data)
        assert not isinstance(outcome, KnownImage)  # noqa: S101 - no hash was named.
        return outcome

    def _ask(
        self,
        begin: Callable[[], _Exchange],
        kind: FrameKind,
        meta: dict[str, Any] | None,
        payload: bytes,
    ) -> DecodedImage | KnownImage | ImageFailure:
        for _ in range(_STARTS_PER_IMAGE):
            connection = self._ensure_started()
            exchange = begin()
            deadline = time.monotonic() + self._setup.limits.timeout_seconds
            connection.settimeout(self._setup.limits.timeout_seconds)
            try:
                send_frame(connection, kind, meta, payload)
                while (outcome := exchange.take(receive_frame(connection, deadline))) is None:
                    pass
            except TimeoutError:
                self.end()
                return exchange.failure(
                    FailureReason.DECODER_TIMEOUT,
                    f"Reading and decoding took longer than {self._setup.limits.timeout_seconds:g} "
                    "seconds and was ended (IMAGEDEX_DECODING__TIMEOUT_SECONDS).",
                )
            except WireError as error:
                self.end()
                return exchange.failure(
                    FailureReason.DECODER_CRASHED,
                    f"The decoder process went astray on this image ({error}).",
                )
            except (PeerGone, OSError):
                how = self.end()
                # A process that dies before it has the file open does not die of the file.
                if exchange.stamp is not None and not self._interrupted:
                    return exchange.failure(
                        FailureReason.DECODER_CRASHED,
                        f"The decoder process ended on this image ({how}).",
                    )
            except ModelError:
                self.end()
                raise
            else:
                return outcome
        raise EngineError(
            f"Decoder processes died {_STARTS_PER_IMAGE} times before they opened an image; look "
            "for what ends processes on this machine (memory, limits)."
        )

    def interrupt(self) -> None:
        """Make the present and every further ``decode`` raise EngineError, soon."""
        with self._lock:
            self._interrupted = True
            if self._process is not None:
                self._process.kill()

    def end(self) -> str:
        """End the process, leaving no zombie, and say how it ended."""
        with self._lock:
            process, self._process = self._process, None
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if process is None:
            return "not started"
        process.kill()
        try:
            code = process.wait(_KILL_SECONDS)
        except subprocess.TimeoutExpired:
            # It hangs in the kernel; whenever it returns, this thread takes its exit status.
            threading.Thread(target=process.wait, daemon=True).start()
            return "it hangs in the kernel"
        return _describe_exit(code)

    def _ensure_started(self) -> socket.socket:
        if self._connection is not None:
            # An idle process that died meanwhile must not be held against the next image.
            if self._process is not None and self._process.poll() is None:
                return self._connection
            self.end()
        process, connection = self._launch()
        connection.settimeout(_START_SECONDS)
        try:
            send_pickle(connection, FrameKind.SETUP, self._setup)
            frame = receive_frame(connection, time.monotonic() + _START_SECONDS)
            reason = "" if frame.kind is FrameKind.READY else str(frame.meta.get("text"))
        except (PeerGone, WireError, OSError) as error:
            how = self.end()
            raise EngineError(
                f"A decoder process could not be started ({error}; {how}): {_last_words(process)}"
            ) from error
        finally:
            if process.stderr is not None:
                process.stderr.close()
        if reason:
            self.end()
            raise ModelError(f"The preprocessing step cannot be loaded: {reason}")
        return connection

    def _launch(self) -> tuple[subprocess.Popen[bytes], socket.socket]:
        ours, theirs = socket.socketpair()
        with theirs, self._lock:
            if self._interrupted:
                ours.close()
                raise EngineError("The decoder was closed.")
            try:
                self._process = subprocess.Popen(  # noqa: S603 - our own program.
                    # -P: whatever lies in the working directory is not imported.
                    [sys.executable, "-P", "-m", _PROGRAM, str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    env=_child_environment(),
                    process_group=0,  # Ctrl-C reaches the parent alone.
                )
            except OSError as error:
                ours.close()
                raise EngineError(f"A decoder process could not be started: {error}") from error
        self._connection = ours
        return self._process, ours


class _Exchange:
    """The answers for one image, put together and mistrusted."""

    def __init__(
        self, image_path: str, shape: tuple[int, ...] | None, known_hashes: Collection[str]
    ) -> None:
        self._image_path = image_path
        self._known_hashes = known_hashes
        self._shape = shape
        self.stamp: FileStamp | None = None  # Once the child has opened the file.

    def take(self, frame: Frame) -> DecodedImage | KnownImage | ImageFailure | None:
        """Return the outcome when this frame brings it. Raises WireError, ModelError."""
        try:
            if frame.kind is FrameKind.OPENED:
                self.stamp = _stamp_of(frame.meta)
                return None
            if frame.kind is FrameKind.DECODED:
                return self._decoded(frame)
            if frame.kind is FrameKind.KNOWN:
                return self._known(frame.meta)
            if frame.kind is FrameKind.FAILED:
                stamp = self.stamp if frame.meta["keeps_stamp"] else None
                detail = _text(frame.meta["detail"])
                reason = FailureReason(frame.meta["reason"])
                return ImageFailure(self._image_path, reason, detail, stamp)
        except (KeyError, TypeError, ValueError) as error:
            text = repr(error)[: _MAX_DETAIL_CHARACTERS // 2]
            raise WireError(f"an answer that makes no sense: {text}") from error
        if frame.kind is FrameKind.BROKEN:
            raise ModelError(f"The preprocessing step is of no use: {frame.meta.get('text')}")
        raise WireError(f"an answer out of turn: {frame.kind!r}")

    def failure(self, reason: FailureReason, detail: str) -> ImageFailure:
        """Return a failure of the file that the child had open."""
        return ImageFailure(self._image_path, reason, detail, self.stamp)

    def _known(self, meta: dict[str, Any]) -> KnownImage:
        if meta["content_hash"] not in self._known_hashes:
            raise WireError("a content hash that was not asked for")
        return KnownImage(self._image_path, meta["content_hash"], _stamp_of(meta))

    def _decoded(self, frame: Frame) -> DecodedImage:
        meta = frame.meta
        shape = _shape_of(meta["shape"])
        if self._shape not in (None, shape):
            raise WireError(f"pixels of shape {shape} in place of {self._shape}")
        if math.prod(shape) != len(frame.payload):
            raise WireError(f"{len(frame.payload)} bytes of pixels for shape {shape}")
        if not _SHA256.fullmatch(meta["content_hash"]):
            raise WireError("a content hash that is none")
        facts = ImageFacts(
            image_path=self._image_path,
            content_hash=meta["content_hash"],
            stamp=_stamp_of(meta),
            width=_integer(meta["width"], 1, _INT32_MAX),
            height=_integer(meta["height"], 1, _INT32_MAX),
            format=_text(meta["format"])[:32],
        )
        # Over the received buffer itself: nothing is copied, and the array can be written to.
        pixels = np.frombuffer(frame.payload, dtype=np.uint8).reshape(shape)
        return DecodedImage(facts, pixels)


def _stamp_of(meta: dict[str, Any]) -> FileStamp:
    return FileStamp(
        size=_integer(meta["size"], 0, _INT64_MAX),
        mtime_ns=_integer(meta["mtime_ns"], -_INT64_MAX - 1, _INT64_MAX),
    )


def _shape_of(value: object) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) > _MAX_DIMENSIONS:
        raise ValueError("no shape")
    return tuple(_integer(length, 0, _INT32_MAX) for length in value)


def _integer(value: object, least: int, most: int) -> int:
    # JSON's true is an int to isinstance, and what is no int may be huge or deep: not shown.
    if type(value) is not int:
        raise ValueError(f"a {type(value).__name__} in place of an integer")
    if not least <= value <= most:
        raise ValueError(f"an integer that is not from {least} to {most}")
    return value


def _text(value: object) -> str:
    """Return a text without what JSON can hold and databases refuse: NUL, half surrogates."""
    if not isinstance(value, str):
        raise TypeError(f"a {type(value).__name__} in place of a text")
    text = value[:_MAX_DETAIL_CHARACTERS].replace("\0", "\\0")
    return text.encode("utf-8", "backslashreplace").decode()[:_MAX_DETAIL_CHARACTERS]


def _child_environment() -> dict[str, str]:
    environment = {
        name: value
        for name, value in os.environ.items()
        # Keys and database passwords are none of the business of what meets hostile files.
        if not name.startswith("IMAGEDEX_")
    }
    environment |= _SINGLE_THREADED
    # The child finds the same packages as this process, however it came by them.
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    return environment


def _describe_exit(code: int) -> str:
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(-code).name}"
    return f"exit status {code}"


def _last_words(process: subprocess.Popen[bytes]) -> str:
    if process.stderr is None or process.poll() is None:
        return "it said nothing"
    lines = process.stderr.read().decode("utf-8", "backslashreplace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
