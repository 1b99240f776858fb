"""The tree of errors, and its drawing."""

import inspect

from imagedex.core import errors
from imagedex.core.errors import ImagedexError


def _classes() -> list[type[ImagedexError]]:
    return [
        value
        for value in vars(errors).values()
        if inspect.isclass(value) and issubclass(value, ImagedexError)
    ]


def test_the_drawing_at_the_top_shows_every_error() -> None:
    drawing = errors.__doc__ or ""
    missing = [kind.__name__ for kind in _classes() if kind.__name__ not in drawing]
    assert missing == []


def test_every_error_says_what_to_do_about_it() -> None:
    assert all(kind.__doc__ for kind in _classes())


def test_only_errors_that_pass_by_themselves_are_retryable() -> None:
    retryable = {kind.__name__ for kind in _classes() if kind.retryable}
    assert retryable == {
        "EngineError",
        "HostUnreachable",
        "NoWorkers",
        "StorageError",
        "Superseded",
        "Unavailable",
        "UnfitWorker",
        "WorkerLost",
    }
