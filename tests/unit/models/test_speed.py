"""What a measurement of speed yields; how fast anything is, no test asks."""

from __future__ import annotations

from pathlib import Path

from imagedex.embedding.clip import ClipModel
from imagedex.embedding.runtimes import Precision, Runtime
from imagedex.models.speed import BATCH_SIZES, BatchSpeed, FormSpeed, fastest, measure_forms


def form(runtime: Runtime, *rates: float) -> FormSpeed:
    batches = tuple(
        BatchSpeed(size, rate, 1.0) for size, rate in zip(BATCH_SIZES, rates, strict=False)
    )
    return FormSpeed(runtime, Precision.FP32, batches)


def test_the_best_batch_is_the_least_that_is_about_as_fast_as_any() -> None:
    best = form(Runtime.OPENVINO, 1.0, 1.9, 2.0, 1.99).best
    assert best is not None
    assert (best.batch, best.images_per_second) == (4, 2.0)
    best = form(Runtime.OPENVINO, 1.99, 2.0, 1.5).best
    assert best is not None
    assert best.batch == 1


def test_the_fastest_form_is_one_that_can_be_used() -> None:
    absent = FormSpeed(Runtime.CUDA, Precision.FP32, reason="There is none.")
    slow, fast = form(Runtime.ONNXRUNTIME, 1.0), form(Runtime.OPENVINO, 1.5)
    assert fastest([absent, slow, fast]) is fast
    assert fastest([absent]) is None
    assert absent.best is None


def test_every_runtime_and_precision_is_measured_or_has_a_reason(tiny: Path) -> None:
    def open_model(precision: Precision, runtime: Runtime) -> ClipModel:
        return ClipModel.open(tiny, name="tiny", precision=precision, runtime=runtime)

    notes: list[str] = []
    forms = list(measure_forms(open_model, threads=1, seconds=0.0, on_note=notes.append))

    assert {(each.runtime, each.precision) for each in forms} == {
        (runtime, precision)
        for precision in Precision
        for runtime in Runtime
        if runtime is not Runtime.AUTO
    }
    measured = [each for each in forms if each.reason is None]
    assert {
        (Runtime.OPENVINO, Precision.FP32),
        (Runtime.ONNXRUNTIME, Precision.FP32),
    } <= {(each.runtime, each.precision) for each in measured}
    for each in measured:
        assert each.text is not None
        assert [speed.batch for speed in each.batches] == list(BATCH_SIZES[: len(each.batches)])
        assert all(speed.images_per_second > 0 for speed in each.batches)
    without_int8 = [each.reason for each in forms if each.precision is Precision.INT8]
    assert all(reason is not None for reason in without_int8)
    assert any("imagedex models quantize" in (reason or "") for reason in without_int8)
