"""A graph of one fixed size gets its axes free, or stays as it is and says why."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from imagedex.core.errors import ModelError, StorageError
from imagedex.embedding.runtimes import Runtime, describe_graph, load_graph
from imagedex.models.text_axis import free_batch_axis, free_text_axis
from support.tiny_models import write_tiny_clip, write_tiny_siglip
from support.traced_text import LENGTH, VOCABULARY, write_traced_text

END = VOCABULARY - 1


def run(graph: Path, ids: NDArray[np.int32], runtime: Runtime) -> NDArray[np.float32]:
    return load_graph(graph, threads=1, runtime=runtime, output="embedding").run({"text": ids})


def text(length: int) -> NDArray[np.int32]:
    """A text of ``length`` tokens with its end token, padded to the full length."""
    ids = np.zeros((1, LENGTH), dtype=np.int32)
    ids[0, : length - 1] = np.random.default_rng(length).integers(4, END, length - 1)
    ids[0, length - 1] = END
    return ids


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    return write_traced_text(tmp_path / "model.onnx")


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "free.onnx"


@pytest.mark.parametrize("runtime", [Runtime.ONNXRUNTIME, Runtime.OPENVINO])
def test_a_traced_graph_gives_the_same_vectors_to_texts_at_their_own_length(
    graph: Path, output: Path, runtime: Runtime
) -> None:
    before = hashlib.sha256(graph.read_bytes()).hexdigest()
    outcome = free_text_axis(graph, output)
    assert (outcome.is_dynamic, outcome.was_fixed_at) == (True, LENGTH), outcome.reason
    assert (outcome.is_batch_dynamic, outcome.is_rewritten) == (True, True)
    assert describe_graph(output).inputs[0].shape == (None, None)
    lengths = (2, 9, 33, 77)
    expected = np.concatenate([run(graph, text(length), runtime) for length in lengths])
    alone = [run(output, text(length)[:, :length], runtime) for length in lengths]
    together = run(
        output, np.concatenate([text(length) for length in lengths[:3]])[:, :33], runtime
    )
    np.testing.assert_allclose(np.concatenate(alone), expected, atol=1e-5)
    np.testing.assert_allclose(together, expected[:3], atol=1e-5)
    assert hashlib.sha256(graph.read_bytes()).hexdigest() == before


def test_the_rewritten_graph_is_valid_and_has_no_stale_shapes(graph: Path, output: Path) -> None:
    model = onnx.shape_inference.infer_shapes(onnx.load(graph))
    assert model.graph.value_info
    onnx.save(model, graph)
    assert free_text_axis(graph, output).is_rewritten
    rewritten = onnx.load(output)
    onnx.checker.check_model(rewritten, full_check=True)
    assert not rewritten.graph.value_info
    used = {name for node in rewritten.graph.node for name in node.input}
    assert {each.name for each in rewritten.graph.initializer} <= used


@pytest.mark.parametrize("layout", ["immich", "transformers"])
def test_a_tiny_clip_of_fixed_size_gets_both_axes_free(tmp_path: Path, layout: str) -> None:
    assert layout in ("immich", "transformers")
    folder = write_tiny_clip(tmp_path, layout, text_axis="fixed")  # type: ignore[arg-type]
    name = "textual/model.onnx" if layout == "immich" else "onnx/text_model.onnx"
    outcome = free_text_axis(folder / name, (folder / name).with_name("free.onnx"))
    assert (outcome.is_dynamic, outcome.is_batch_dynamic) == (True, True), outcome.reason


def test_a_graph_that_takes_any_length_is_left_alone(tmp_path: Path, output: Path) -> None:
    graph = write_tiny_clip(tmp_path) / "textual" / "model.onnx"
    outcome = free_text_axis(graph, graph.with_name("free.onnx"))
    assert (outcome.is_dynamic, outcome.was_fixed_at) == (True, None)
    assert not outcome.is_rewritten
    assert [path.name for path in graph.parent.glob("*.onnx*")] == ["model.onnx"]


def test_siglip_keeps_its_length_and_gets_a_free_batch(tmp_path: Path) -> None:
    graph = write_tiny_siglip(tmp_path, text_axis="fixed") / "textual" / "model.onnx"
    outcome = free_text_axis(graph, graph.with_name("free.onnx"))
    assert (outcome.is_dynamic, outcome.was_fixed_at) == (False, 64)
    assert (outcome.is_batch_dynamic, outcome.is_rewritten) == (True, True)
    assert "attends to the padding" in outcome.reason
    assert describe_graph(graph.with_name("free.onnx")).inputs[0].shape == (None, 64)


def test_a_traced_graph_that_sees_its_padding_keeps_its_length(
    tmp_path: Path, output: Path
) -> None:
    graph = write_traced_text(tmp_path / "model.onnx", is_causal=False)
    outcome = free_text_axis(graph, output)
    assert (outcome.is_dynamic, outcome.was_fixed_at) == (False, LENGTH)


def test_an_operator_of_another_domain_keeps_the_graph_as_it_is(graph: Path, output: Path) -> None:
    model = onnx.load(graph)
    erf = next(node for node in model.graph.node if node.op_type == "Erf")
    erf.op_type, erf.domain = "Gelu", "com.microsoft"
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    onnx.save(model, graph)
    outcome = free_text_axis(graph, output)
    assert not outcome.is_dynamic
    assert "com.microsoft" in outcome.reason
    assert not output.exists()


def test_a_length_that_nothing_explains_keeps_the_graph_as_it_is(graph: Path, output: Path) -> None:
    model = onnx.load(graph)
    # The rows of the last layer are added to a tensor of full length that depends on the text.
    table = onnx.numpy_helper.from_array(np.ones((VOCABULARY, 24), np.float32), "other")
    full = onnx.numpy_helper.from_array(np.array([[5] * LENGTH], np.int64), "places")
    model.graph.initializer.extend([table, full])
    first = next(node for node in model.graph.node if node.op_type == "Add")
    extra = [
        onnx.helper.make_node("ReduceMax", ["text"], ["most"], keepdims=1),
        onnx.helper.make_node("Cast", ["most"], ["most64"], to=onnx.TensorProto.INT64),
        onnx.helper.make_node("Min", ["places", "most64"], ["picked"]),
        onnx.helper.make_node("Gather", ["other", "picked"], ["more"]),
        onnx.helper.make_node("Add", [first.input[0], "more"], ["sum"]),
    ]
    position = list(model.graph.node).index(first)
    first.input[0] = "sum"
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes[:position], *extra, *nodes[position:]])
    onnx.save(model, graph)
    outcome = free_text_axis(graph, output)
    assert not outcome.is_dynamic
    assert "cannot be rewritten" in outcome.reason
    assert not output.exists()


def test_a_graph_with_one_vector_for_all_texts_proves_nothing(graph: Path, output: Path) -> None:
    model = onnx.load(graph)
    rows = next(each for each in model.graph.initializer if tuple(each.dims) == (VOCABULARY, 24))
    rows.CopyFrom(onnx.numpy_helper.from_array(np.ones((VOCABULARY, 24), np.float32), rows.name))
    positions = next(each for each in model.graph.initializer if tuple(each.dims) == (LENGTH, 24))
    positions.CopyFrom(
        onnx.numpy_helper.from_array(np.ones((LENGTH, 24), np.float32), positions.name)
    )
    onnx.save(model, graph)
    outcome = free_text_axis(graph, output)
    assert not outcome.is_dynamic
    assert "nothing can be proven" in outcome.reason


@pytest.mark.parametrize("is_external", [False, True])
def test_large_weights_come_along_where_they_are(tmp_path: Path, is_external: bool) -> None:
    # Large enough that the file is written around them and not through protobuf.
    graph = write_traced_text(tmp_path / "model.onnx", vocabulary_rows=3000)
    if is_external:
        model = onnx.load(graph)
        graph.unlink()
        onnx.save(model, graph, save_as_external_data=True, location="weights.bin")
    output = tmp_path / "free.onnx"
    outcome = free_text_axis(graph, output)
    assert outcome.is_rewritten, outcome.reason
    assert (output.stat().st_size < 100_000) is is_external
    onnx.checker.check_model(str(output), full_check=True)
    ids = text(12)
    expected = run(graph, ids, Runtime.ONNXRUNTIME)
    np.testing.assert_allclose(run(output, ids[:, :12], Runtime.ONNXRUNTIME), expected, atol=1e-5)


def test_an_image_graph_for_one_picture_gets_a_free_batch(tmp_path: Path) -> None:
    graph = write_tiny_clip(tmp_path, image_axis="fixed") / "visual" / "model.onnx"
    outcome = free_batch_axis(graph, graph.with_name("free.onnx"))
    assert (outcome.is_dynamic, outcome.was_fixed_at) == (True, 1), outcome.reason
    assert describe_graph(graph.with_name("free.onnx")).inputs[0].shape == (None, 3, 32, 32)
    again = free_batch_axis(graph.with_name("free.onnx"), graph.with_name("again.onnx"))
    assert (again.is_dynamic, again.is_rewritten) == (True, False)


def test_what_is_no_graph_is_an_error(tmp_path: Path, output: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(ModelError):
        free_text_axis(tmp_path / "model.onnx", output)


def test_a_directory_that_cannot_be_written_is_an_error(graph: Path, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="Could not write"):
        free_text_axis(graph, tmp_path / "missing" / "free.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx"]
