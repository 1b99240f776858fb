"""The decoder process: ``python -m imagedex.ingest._decoder_process DESCRIPTOR``.

It reads, hashes, decodes and preprocesses one image at a time, and may hang or die on it.
It must not outlive its parent: a thread watches the connection and the parent's id, and the
kernel's alarm ends it when an image takes far too long, should even that thread be stuck.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import resource
import select
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from imagedex.core.images import FailureReason, FileStamp
from imagedex.embedding.interfaces import PixelArray, Preprocess, SupportsReducedDecoding
from imagedex.ingest._wire import (
    ChildSetup,
    Frame,
    FrameKind,
    PeerGone,
    receive_frame,
    send_frame,
)
from imagedex.ingest.interfaces import DecodeLimits
from imagedex.ingest.picture import decode_picture
from imagedex.ingest.reading import FileBytes, read_image
from imagedex.ingest.roots import ImageRoots
from imagedex.ingest.unusable import UnusableImage

_PARENT_CHECK_MILLISECONDS = 5000
_SEND_BUFFER_BYTES = 1024 * 1024
_ALARM_MARGIN_SECONDS = 10.0


class _PreprocessUnfit(Exception):
    """The preprocessing step breaks its contract, whatever the image."""


def main() -> None:
    """Serve until the parent closes the connection."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent to act on.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    parent = os.getppid()
    connection = socket.socket(fileno=int(sys.argv[1]))
    # Room for an answer of usual size, so that the next image need not wait for its reader.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
    threading.Thread(target=_watch_parent, args=(connection, parent), daemon=True).start()
    try:
        # From the parent, which started this program: trusted.
        setup: ChildSetup = pickle.loads(receive_frame(connection).payload)  # noqa: S301
        try:
            preprocess: Preprocess = pickle.loads(setup.preprocess)  # noqa: S301
        except Exception:  # Loading runs code of a model, which may raise anything.
            send_frame(connection, FrameKind.BROKEN, {"text": traceback.format_exc(limit=-3)})
            return
        _confine(setup.limits)
        send_frame(connection, FrameKind.READY)
        worker = _Worker(connection, setup.roots, setup.limits, preprocess)
        while True:
            frame = receive_frame(connection)
            if not worker.serve(frame):
                return
    except (PeerGone, OSError):
        return  # The parent is gone or has closed this process; there is nobody to tell.


def _watch_parent(connection: socket.socket, parent: int) -> None:
    poll = select.poll()
    poll.register(connection, getattr(select, "POLLRDHUP", 0))  # A hang-up is always reported.
    # The id is looked at too, since a process forked from the parent can keep the socket open.
    while not poll.poll(_PARENT_CHECK_MILLISECONDS) and os.getppid() == parent:
        pass
    os._exit(0)


def _confine(limits: DecodeLimits) -> None:
    """Bound what an image can cost, and make this process the first that the kernel ends."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    memory = (
        limits.memory_bytes if hard == resource.RLIM_INFINITY else min(limits.memory_bytes, hard)
    )
    resource.setrlimit(resource.RLIMIT_AS, (memory, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # A core dump would hold people's photos.
    # Where this is not Linux, or not allowed, the kernel chooses without our advice.
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")
    # Until here the parent listens to stderr for why a start fails. From here on C libraries
    # may fill it with warnings, and nobody reads it.
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 2)
    os.close(silent)


@dataclass(slots=True)
class _Worker:
    connection: socket.socket
    roots: ImageRoots
    limits: DecodeLimits
    preprocess: Preprocess

    def serve(self, request: Frame) -> bool:
        """Answer for one image; return whether this process is fit for another."""
        signal.setitimer(
            signal.ITIMER_REAL, self.limits.timeout_seconds * 1.5 + _ALARM_MARGIN_SECONDS
        )
        try:
            return self._answer(request)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _answer(self, request: Frame) -> bool:
        try:
            file = self._read(request)
        except UnusableImage as unusable:
            self._tell_failed(unusable, keeps_stamp=unusable.stamp is not None)
            return True
        except MemoryError:
            self._tell_failed(self._out_of_memory(), keeps_stamp=True)
            return False
        content_hash = hashlib.sha256(file.data).hexdigest()
        if content_hash in request.meta.get("known", ()):
            stamp = {"size": file.stamp.size, "mtime_ns": file.stamp.mtime_ns}
            send_frame(self.connection, FrameKind.KNOWN, {"content_hash": content_hash, **stamp})
            return True
        try:
            facts, pixels = self._decode(file, content_hash)
        except UnusableImage as unusable:
            self._tell_failed(unusable, keeps_stamp=True)
        except MemoryError:
            # What is left of the failed attempt may hold memory that the next image needs.
            self._tell_failed(self._out_of_memory(), keeps_stamp=True)
            return False
        except _PreprocessUnfit as unfit:
            send_frame(self.connection, FrameKind.BROKEN, {"text": str(unfit)})
            return False
        else:
            send_frame(self.connection, FrameKind.DECODED, facts, pixels.reshape(-1).data)
        return True

    def _read(self, request: Frame) -> FileBytes:
        if request.kind is FrameKind.DECODE_BYTES:
            stamp = FileStamp(len(request.payload), mtime_ns=0)
            self._tell_opened(stamp)
            return FileBytes(bytes(request.payload), stamp)
        return read_image(
            self.roots,
            request.payload.decode(),
            max_file_bytes=self.limits.max_file_bytes,
            on_open=self._tell_opened,
        )

    def _decode(self, file: FileBytes, content_hash: str) -> tuple[dict[str, Any], PixelArray]:
        picture = decode_picture(
            file.data, max_pixels=self.limits.max_pixels, enough_size=self._enough_size
        )
        with _blaming_preprocess(picture.width, picture.height):
            # Code of a model: what it returns is looked at, whatever its types promise.
            pixels: object = self.preprocess(picture.image)
        if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8:
            kind = pixels.dtype if isinstance(pixels, np.ndarray) else type(pixels).__name__
            raise _PreprocessUnfit(f"{self.preprocess!r} returned {kind}, not an array of uint8.")
        facts = {
            "content_hash": content_hash,
            "size": file.stamp.size,
            "mtime_ns": file.stamp.mtime_ns,
            "width": picture.width,
            "height": picture.height,
            "format": picture.format,
            "shape": pixels.shape,
        }
        return facts, np.ascontiguousarray(pixels)

    def _enough_size(self, width: int, height: int) -> tuple[int, int] | None:
        if not isinstance(self.preprocess, SupportsReducedDecoding):
            return None
        with _blaming_preprocess(width, height):
            return self.preprocess.enough_size(width, height)

    def _tell_opened(self, stamp: FileStamp) -> None:
        meta = {"size": stamp.size, "mtime_ns": stamp.mtime_ns}
        send_frame(self.connection, FrameKind.OPENED, meta)

    def _tell_failed(self, unusable: UnusableImage, *, keeps_stamp: bool) -> None:
        meta = {
            "reason": unusable.reason.value,
            "detail": unusable.detail[:1000],
            "keeps_stamp": keeps_stamp,
        }
        send_frame(self.connection, FrameKind.FAILED, meta)

    def _out_of_memory(self) -> UnusableImage:
        return UnusableImage(
            FailureReason.TOO_MANY_PIXELS,
            "Reading and decoding it needs more memory than a decoder process may use: "
            f"{self.limits.memory_bytes} bytes (IMAGEDEX_DECODING__MEMORY_BYTES).",
        )


@contextlib.contextmanager
def _blaming_preprocess(width: int, height: int) -> Iterator[None]:
    """Turn what a model's code raises about a picture into the picture's failure."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        raise UnusableImage(
            FailureReason.DAMAGED,
            f"The model's preprocessing cannot use this picture of {width} x {height} pixels: "
            f"{str(error) or type(error).__name__}.",
        ) from error


if __name__ == "__main__":
    main()
