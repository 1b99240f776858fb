"""Graphs of a fixed size from real exporters get their axes free, or keep them for a reason."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import pytest

from exactness.fixed_exports import (
    Exporter,
    FixedExport,
    clip_text,
    multilingual_text,
    open_clip,
    siglip_text,
)
from imagedex.models.text_axis import free_batch_axis, free_text_axis

EXPORTERS: tuple[Exporter, ...] = ("traced", "dynamo")


def optimised(path: Path) -> Path:
    """What ONNX Runtime makes of a graph at its basic level, as older published files are."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    output = path.with_name("optimised.onnx")
    options.optimized_model_filepath = str(output)
    onnxruntime.InferenceSession(str(path), options)
    return output


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize(
    "export",
    [lambda: open_clip("text"), clip_text, multilingual_text],
    ids=["open_clip", "transformers", "multilingual"],
)
def test_a_text_graph_gets_a_free_length_and_batch(
    export: object, exporter: Exporter, tmp_path: Path
) -> None:
    assert callable(export)
    fixed: FixedExport = export()
    graph = fixed.write(tmp_path / "model.onnx", exporter)
    outcome = free_text_axis(graph, tmp_path / "free.onnx")
    assert (outcome.is_dynamic, outcome.was_fixed_at) == (True, 77), outcome.reason
    assert outcome.is_batch_dynamic


@pytest.mark.parametrize(
    "export", [lambda: open_clip("text"), clip_text], ids=["open_clip", "transformers"]
)
def test_a_text_graph_with_a_free_batch_gets_a_free_length(export: object, tmp_path: Path) -> None:
    assert callable(export)
    fixed: FixedExport = export()
    graph = fixed.write(tmp_path / "model.onnx", "traced", free_batch=True)
    outcome = free_text_axis(graph, tmp_path / "free.onnx")
    assert (outcome.is_dynamic, outcome.is_batch_dynamic) == (True, True), outcome.reason


def test_a_graph_that_onnx_runtime_has_folded_gets_free_axes(tmp_path: Path) -> None:
    text = optimised(open_clip("text").write(tmp_path / "text.onnx", "traced"))
    outcome = free_text_axis(text, tmp_path / "free.onnx")
    assert (outcome.is_dynamic, outcome.is_batch_dynamic) == (True, True), outcome.reason
    image = optimised(open_clip("image").write(tmp_path / "image.onnx", "traced"))
    assert free_batch_axis(image, tmp_path / "free.onnx").is_dynamic


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_an_image_graph_gets_a_free_batch(exporter: Exporter, tmp_path: Path) -> None:
    graph = open_clip("image").write(tmp_path / "model.onnx", exporter)
    outcome = free_batch_axis(graph, tmp_path / "free.onnx")
    assert (outcome.is_dynamic, outcome.was_fixed_at) == (True, 1), outcome.reason


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_siglip_keeps_its_length_and_gets_a_free_batch(exporter: Exporter, tmp_path: Path) -> None:
    graph = siglip_text().write(tmp_path / "model.onnx", exporter)
    outcome = free_text_axis(graph, tmp_path / "free.onnx")
    assert (outcome.is_dynamic, outcome.was_fixed_at) == (False, 64)
    assert outcome.is_batch_dynamic
    assert "attends to the padding" in outcome.reason
