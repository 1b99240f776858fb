"""A pool of decoder processes."""

from __future__ import annotations

import pickle
import threading
from collections import deque
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from queue import LifoQueue
from typing import TypeAlias, cast

from imagedex.core.errors import EngineError, ModelError
from imagedex.core.images import ImageFailure
from imagedex.embedding.interfaces import Preprocess
from imagedex.ingest._decoder_child import DecoderChild
from imagedex.ingest._wire import ChildSetup
from imagedex.ingest.interfaces import DecodedImage, DecodeLimits, KnownImage
from imagedex.ingest.roots import ImageRoots

_Outcome: TypeAlias = DecodedImage | KnownImage | ImageFailure
_Request: TypeAlias = tuple[str, Collection[str]]  # A path, and the hashes known for it.

_EXTRA_LOOK_AHEAD = 4
"""So that one slow image does not leave the other processes without work at once."""


class ProcessImageDecoder:
    """An :class:`ImageDecoder` whose work is done by child processes, one image at a time each.

    A thread serves each child, so decoding goes on while the caller works on what it got.
    The children start with the first image, are replaced when an image hangs or kills them,
    and end with :meth:`close` or with this process, however it ends. At most ``look_ahead``
    outcomes wait for each caller (by default two for each process and four more).
    ``preprocess`` must be picklable, importable in a fresh interpreter, and give uint8 arrays
    of any shape; ModelError is raised here or by ``decode`` when it is not. With ``shape`` an
    image whose array has another one fails as decoder_crashed: a decoder that a hostile image
    took over cannot hand over what does not fit the caller's other arrays.

    ``decode`` raises EngineError when no child can be started or the decoder was closed.
    An iteration that is given up leaves the decoder usable.
    """

    def __init__(
        self,
        *,
        roots: ImageRoots,
        preprocess: Preprocess,
        processes: int = 1,
        limits: DecodeLimits | None = None,
        look_ahead: int | None = None,
        shape: tuple[int, ...] | None = None,
    ) -> None:
        if processes < 1 or (look_ahead is not None and look_ahead < 1):
            raise ValueError(
                f"processes ({processes}) and look_ahead ({look_ahead}) must be at least 1"
            )
        try:
            pickled = pickle.dumps(preprocess, pickle.HIGHEST_PROTOCOL)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise ModelError(
                f"The preprocessing step {preprocess!r} cannot be sent to a decoder process: "
                f"{error}; make it an instance of a class, or a function, at a module's top level."
            ) from error
        setup = ChildSetup(roots, limits or DecodeLimits(), pickled)
        self._look_ahead = look_ahead or 2 * processes + _EXTRA_LOOK_AHEAD
        self._children = [DecoderChild(setup, shape=shape) for _ in range(processes)]
        # The child used last is used next: under light load the others need not even start.
        self._idle: LifoQueue[DecoderChild] = LifoQueue()
        for child in self._children:
            self._idle.put(child)
        self._threads = ThreadPoolExecutor(processes, thread_name_prefix="decoder")
        self._closing = threading.Lock()

    def decode(
        self, image_paths: Iterable[str]
    ) -> Generator[DecodedImage | ImageFailure, None, None]:
        """Yield exactly one outcome for each path, in the order given (see ImageDecoder)."""
        # Where no hash is known no image is.
        return cast(
            "Generator[DecodedImage | ImageFailure, None, None]",
            self.decode_unknown(image_paths, {}),
        )

    def decode_unknown(
        self, image_paths: Iterable[str], known_hashes: Mapping[str, Collection[str]]
    ) -> Generator[_Outcome, None, None]:
        """Yield one outcome for each path; what has a known hash is not decoded."""
        requests = ((path, known_hashes.get(path, ())) for path in image_paths)
        pending: deque[Future[_Outcome]] = deque()
        # Here and not with the first outcome, which is asked for when a model has been loaded.
        try:
            self._fill(pending, requests)
        except BaseException:
            _cancel(pending)
            raise
        return self._outcomes(pending, requests)

    def decode_bytes(self, data: bytes) -> DecodedImage | ImageFailure:
        """Return the outcome for a picture that lies in no file; its path is ``""``.

        The limits hold for it too, but for that of a file's bytes: the caller has them already.
        """
        try:
            outcome = self._threads.submit(self._decode_bytes, data)
        except RuntimeError as error:  # The executor takes nothing more.
            raise EngineError("The decoder was closed; make a new one.") from error
        try:
            return outcome.result()
        except CancelledError as error:
            raise EngineError("The decoder was closed while it was in use.") from error

    def _outcomes(
        self, pending: deque[Future[_Outcome]], requests: Iterator[_Request]
    ) -> Generator[_Outcome, None, None]:
        try:
            while pending:
                outcome = pending.popleft().result()
                self._fill(pending, requests)
                yield outcome
        except CancelledError as error:
            raise EngineError("The decoder was closed while it was in use.") from error
        finally:
            _cancel(pending)

    def close(self) -> None:
        """End the decoder's processes, also those that hang. Calling it again does nothing."""
        with self._closing:
            for child in self._children:
                child.interrupt()
            self._threads.shutdown(wait=True, cancel_futures=True)
            for child in self._children:
                child.end()

    def _fill(self, pending: deque[Future[_Outcome]], requests: Iterator[_Request]) -> None:
        while len(pending) < self._look_ahead:
            request = next(requests, None)
            if request is None:
                return
            try:
                pending.append(self._threads.submit(self._decode_one, *request))
            except RuntimeError as error:  # The executor takes nothing more.
                raise EngineError("The decoder was closed; make a new one.") from error

    def _decode_one(self, image_path: str, known_hashes: Collection[str]) -> _Outcome:
        child = self._idle.get()  # There are as many children as threads: never waits.
        try:
            return child.decode(image_path, known_hashes)
        finally:
            self._idle.put(child)

    def _decode_bytes(self, data: bytes) -> DecodedImage | ImageFailure:
        child = self._idle.get()
        try:
            return child.decode_bytes(data)
        finally:
            self._idle.put(child)


def _cancel(futures: Iterable[Future[_Outcome]]) -> None:
    for future in futures:
        future.cancel()
