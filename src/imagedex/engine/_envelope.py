"""What travels between the controller and a worker: sealed calls there, answers back.

A worker's answer never fails to travel: what cannot be pickled is turned into text. Both ends
belong to one installation and talk over mutual TLS, which is what makes pickle acceptable here.
"""

from __future__ import annotations

import pickle
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from imagedex.core.errors import EngineError, UnfitWorker
from imagedex.engine.interfaces import WorkerContext

_UNFIT = b"unfit:"  # No pickle begins so. The engine reads it without opening the answer.


@dataclass(frozen=True, slots=True)
class _Result:
    value: Any


@dataclass(frozen=True, slots=True)
class _Failure:
    function: str  # Module and name of the chunk function.
    worker_id: str
    error: bytes | None  # The pickled exception; None when it cannot travel.
    summary: str  # Its type and text.
    traceback: str


def seal_call(function: Callable[..., Any], payload: object) -> bytes:
    """Return the bytes that :func:`answer_call` runs.

    Raises TypeError when a worker could not import the function by its module and name, and
    what pickle raises when the payload cannot be pickled.
    """
    _require_importable(function)
    return pickle.dumps((function, payload), protocol=pickle.HIGHEST_PROTOCOL)


def name_of(function: Callable[..., Any]) -> str:
    """Return the module and name of a function, for messages."""
    return f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', function)}"


def answer_call(context: WorkerContext, sealed: bytes) -> bytes:
    """Run a sealed call and return its answer; whatever the function raises is in the answer."""
    name = "unknown"
    try:
        function, payload = pickle.loads(sealed)  # noqa: S301 - Sealed by our own controller.
        name = name_of(function)
        return pickle.dumps(_Result(function(context, payload)), protocol=pickle.HIGHEST_PROTOCOL)
    except UnfitWorker as error:
        return _UNFIT + str(error).encode(errors="replace")
    except BaseException as error:
        # Nothing may pass here: SystemExit and KeyboardInterrupt of one chunk would end the
        # worker, and Dask would log the payload together with any exception it sees.
        failure = _Failure(
            function=name,
            worker_id=context.worker_id,
            error=_pickle_error(error),
            summary=f"{type(error).__name__}: {error}",
            traceback="".join(traceback.format_exception(error)),
        )
        return pickle.dumps(failure, protocol=pickle.HIGHEST_PROTOCOL)


def unfit_reason(answer: bytes) -> str | None:
    """Return why a worker's host is of no use for a call, if that is the answer."""
    if not answer.startswith(_UNFIT):
        return None
    return answer.removeprefix(_UNFIT).decode(errors="replace")


def open_answer(answer: bytes) -> Any:
    """Return the result in an answer, or raise the exception of the function.

    The exception carries the worker's traceback as a note. Raises EngineError in its place when
    it could not travel.
    """
    reason = unfit_reason(answer)
    if reason is not None:
        raise UnfitWorker(reason)
    try:
        content = pickle.loads(answer)  # noqa: S301 - From our own worker.
    except Exception as error:
        raise EngineError(
            f"A chunk's result cannot be read here: {type(error).__name__}: {error}; controller "
            "and workers must run the same version of Imagedex."
        ) from error
    if isinstance(content, _Result):
        return content.value
    raise _error_of(content)


def _error_of(failure: _Failure) -> BaseException:
    error: BaseException | None = None
    if failure.error is not None:
        try:
            error = pickle.loads(failure.error)  # noqa: S301 - From our own worker.
        except Exception as unreadable:
            # It could be read in the worker; without the class here, its text must do.
            failure_cause: BaseException | None = unreadable
        else:
            failure_cause = None
    else:
        failure_cause = None
    if error is None:
        error = EngineError(
            f"Chunk function {failure.function} ended on worker {failure.worker_id!r} with "
            f"{failure.summary}; that exception itself cannot be passed between processes."
        )
        error.__cause__ = failure_cause
    error.add_note(f"Traceback on worker {failure.worker_id!r}:\n{failure.traceback}")
    return error


def _pickle_error(error: BaseException) -> bytes | None:
    # SystemExit and its like would end the thread that asks for the result.
    if not isinstance(error, Exception):
        return None
    try:
        pickled = pickle.dumps(error, protocol=pickle.HIGHEST_PROTOCOL)
        # Many exceptions can be written but not read: their __init__ wants other arguments.
        same_type = type(pickle.loads(pickled)) is type(error)  # noqa: S301 - Our own bytes.
    except Exception:
        # Pickling runs code of the exception's class, so anything can come out of it.
        return None
    return pickled if same_type else None


def _require_importable(function: Callable[..., Any]) -> None:
    module = getattr(function, "__module__", None)
    found: Any = sys.modules.get(module) if module else None
    for part in getattr(function, "__qualname__", "<unnamed>").split("."):
        found = getattr(found, part, None)
    if module == "__main__" or found is not function:
        raise TypeError(
            f"{name_of(function)} cannot be run by a worker: a worker imports a chunk function by "
            "its module and name, so it must be a function at the top level of an importable "
            "module, not a lambda, a local function or one of __main__."
        )
