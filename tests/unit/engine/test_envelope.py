"""What travels between the controller and a worker."""

from __future__ import annotations

import pickle

import pytest

from imagedex.core.errors import EngineError
from imagedex.engine import WorkerContext
from imagedex.engine._context import ProcessContext
from imagedex.engine._envelope import answer_call, open_answer, seal_call
from imagedex.testing.engine import Tally, echo, fail_as

CONTEXT = ProcessContext(worker_id="w", host="h", threads=1).call("call")


def test_a_sealed_call_names_its_function_and_does_not_carry_it() -> None:
    sealed = seal_call(echo, 1)
    assert b"imagedex.testing.engine" in sealed
    assert open_answer(answer_call(CONTEXT, sealed)) == 1


@pytest.mark.parametrize("function", [print, Tally.use, echo], ids=["builtin", "method", "plain"])
def test_what_can_be_imported_by_name_can_be_sealed(function: object) -> None:
    assert callable(function)
    assert pickle.loads(seal_call(function, None))[0] is function


def test_a_function_of_main_is_refused_since_a_worker_has_another_main(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(echo, "__module__", "__main__")
    with pytest.raises(TypeError, match="__main__"):
        seal_call(echo, 1)


def test_a_payload_that_cannot_be_pickled_is_refused_at_once() -> None:
    with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
        seal_call(echo, lambda: None)


def test_a_call_that_cannot_be_read_in_the_worker_is_answered_with_why() -> None:
    foreign = b"cno_such_module\nno_such_function\n."
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        open_answer(answer_call(CONTEXT, foreign))


def test_an_answer_that_cannot_be_read_here_is_an_engine_error() -> None:
    with pytest.raises(EngineError, match="same version"):
        open_answer(b"cno_such_module\nno_such_class\n.")


def test_an_error_that_can_be_read_in_the_worker_only_keeps_its_text(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer = answer_call(CONTEXT, seal_call(fail_as, "imagedex"))
    monkeypatch.delattr("imagedex.core.errors.FingerprintMismatch")
    with pytest.raises(EngineError, match="FingerprintMismatch: another model") as caught:
        open_answer(answer)
    assert isinstance(caught.value.__cause__, AttributeError)


def raise_unreadable(context: WorkerContext, payload: None) -> None:
    """Raise the exception that the test has put into this module."""
    raise globals()["Unreadable"]("this", "that")


def test_an_error_that_can_be_written_but_not_read_keeps_its_text(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Unreadable(Exception):
        """Pickle calls it with what it gave to Exception: one argument, not two."""

        def __init__(self, first: str, second: str) -> None:
            super().__init__(f"{first} and {second}")

    # Made this late because tblib, where it is loaded, teaches pickle to read those made before.
    Unreadable.__qualname__ = "Unreadable"
    monkeypatch.setitem(globals(), "Unreadable", Unreadable)
    with pytest.raises(EngineError, match="Unreadable: this and that"):
        open_answer(answer_call(CONTEXT, seal_call(raise_unreadable, None)))
