"""How fast a model runs on this machine, by runtime and precision.

Pictures are random pixels: the speed of these networks does not depend on what they see.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from imagedex.core.errors import ModelError
from imagedex.embedding import EmbeddingModel, ImageEncoder, TextEncoder
from imagedex.embedding.runtimes import Precision, Runtime, supports

BATCH_SIZES: Final = (1, 2, 4, 8, 16)
QUERY: Final = "two dogs playing in a park"

_ENOUGH: Final = 1.03
"""How many times as fast a larger batch has to be to be worth its memory."""

_PATIENCE: Final = 2
"""Larger sizes in a row that bring nothing before the rest are left untried."""


class OpenModel(Protocol):
    """Opens the model that is measured, in a precision and for a runtime."""

    def __call__(self, precision: Precision, runtime: Runtime) -> EmbeddingModel:
        """Raise ModelError when the model has no such form or this machine cannot run it."""
        ...


@dataclass(frozen=True, slots=True)
class BatchSpeed:
    """Pictures of one batch size."""

    batch: int
    images_per_second: float
    cpu_seconds_per_image: float  # Of all cores together.


@dataclass(frozen=True, slots=True)
class TextSpeed:
    """One short query at a time, as users ask."""

    milliseconds: float
    cpu_milliseconds: float  # Of all cores together.


@dataclass(frozen=True, slots=True)
class FormSpeed:
    """A runtime and a precision; no figures where they cannot be used."""

    runtime: Runtime
    precision: Precision
    batches: tuple[
        BatchSpeed, ...
    ] = ()  # By size; larger ones are left out where they bring nothing.
    text: TextSpeed | None = None
    reason: str | None = None  # Why it cannot be used here; a sentence.

    @property
    def best(self) -> BatchSpeed | None:
        """The smallest batch that is about as fast as any."""
        fastest = max((each.images_per_second for each in self.batches), default=0.0)
        return next(
            (each for each in self.batches if each.images_per_second * _ENOUGH >= fastest), None
        )


def measure_forms(
    open_model: OpenModel, *, threads: int, seconds: float, on_note: Callable[[str], None]
) -> Iterator[FormSpeed]:
    """Measure each runtime and precision in turn, and yield what came out.

    Each batch size runs for about ``seconds``, and once at least. One form is in memory at a
    time. What cannot be used is told with its reason, and is no error.
    """
    for precision in Precision:
        for runtime in (Runtime.OPENVINO, Runtime.ONNXRUNTIME, Runtime.CUDA):
            reason = supports(precision, runtime)
            if reason is not None:
                yield FormSpeed(runtime, precision, reason=reason)
                continue
            on_note(f"Measuring {runtime} in {precision}.")
            try:
                model = open_model(precision, runtime)
                batches = _image_speed(model, model.load_image_encoder(threads=threads), seconds)
                text = _text_speed(model.load_text_encoder(threads=threads), seconds)
            except ModelError as error:
                yield FormSpeed(runtime, precision, reason=str(error))
                continue
            yield FormSpeed(runtime, precision, batches, text)


def fastest(forms: Sequence[FormSpeed]) -> FormSpeed | None:
    """Return the form that embeds most pictures in a second; None when none could be used."""
    usable = [form for form in forms if form.best is not None]
    return max(usable, key=_rate, default=None)


def _rate(form: FormSpeed) -> float:
    return 0.0 if form.best is None else form.best.images_per_second


def _image_speed(
    model: EmbeddingModel, encoder: ImageEncoder, seconds: float
) -> tuple[BatchSpeed, ...]:
    chance = np.random.default_rng(0)
    speeds: list[BatchSpeed] = []
    best, in_vain = 0.0, 0
    for size in BATCH_SIZES:
        pixels = chance.integers(0, 256, (size, *model.input_shape), dtype=np.uint8)
        runs, wall, cpu = _timed(functools.partial(encoder.encode_images, pixels), seconds)
        speeds.append(BatchSpeed(size, runs * size / wall, cpu / (runs * size)))
        in_vain = 0 if speeds[-1].images_per_second > _ENOUGH * best else in_vain + 1
        best = max(best, speeds[-1].images_per_second)
        if in_vain == _PATIENCE:
            break
    return tuple(speeds)


def _text_speed(encoder: TextEncoder, seconds: float) -> TextSpeed:
    runs, wall, cpu = _timed(lambda: encoder.encode_texts([QUERY]), seconds)
    return TextSpeed(1000 * wall / runs, 1000 * cpu / runs)


def _timed(run: Callable[[], object], seconds: float) -> tuple[int, float, float]:
    """Return how often ``run`` ran, and its wall and CPU seconds in all, warmed up."""
    run()  # A runtime prepares itself for a shape when it first sees it.
    runs = 0
    wall, cpu = time.perf_counter(), time.process_time()
    while True:
        run()
        runs += 1
        elapsed = time.perf_counter() - wall
        if elapsed >= seconds:
            return runs, elapsed, time.process_time() - cpu
