from __future__ import annotations

import math
import os
import random
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from imagedex.core.errors import ModelError
from imagedex.embedding.runtimes import GraphInfo, GraphInput, GraphOutput, describe_graph
from imagedex.embedding.runtimes._onnx_file import OnnxFile, read_onnx_file
from support.small_graphs import DIM, SIDE, image_graph, text_graph

FLOAT = np.dtype(np.float32)


def weight_values(file: OnnxFile, name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Return a weight's values, read from where the reader says that they lie."""
    weight = next(one for one in file.weights if one.name == name)
    data = weight.file.read_bytes()[weight.offset : weight.offset + weight.length]
    return np.frombuffer(data, dtype=np.float32).reshape(weight.shape)


def onnx_values(path: Path, name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Return a weight's values as the onnx package reads them."""
    model = onnx.load(path)
    tensor = next(one for one in model.graph.initializer if one.name == name)
    return numpy_helper.to_array(tensor)


def test_inputs_and_outputs_are_described_in_order_with_open_axes_as_none(tmp_path: Path) -> None:
    assert describe_graph(image_graph(tmp_path / "model.onnx")) == GraphInfo(
        (GraphInput("image", FLOAT, (None, 3, SIDE, SIDE)),),
        (GraphOutput("hidden", FLOAT, (None, 256)), GraphOutput("embedding", FLOAT, (None, DIM))),
    )
    assert describe_graph(text_graph(tmp_path / "text.onnx")) == GraphInfo(
        (GraphInput("ids", np.dtype(np.int64), (None, None)),),
        (GraphOutput("doubled", FLOAT, (None, None)),),
    )


def test_a_fixed_batch_is_described(tmp_path: Path) -> None:
    info = describe_graph(image_graph(tmp_path / "model.onnx", batch=1))
    assert info.inputs[0].shape == (1, 3, SIDE, SIDE)


def test_a_large_weight_is_found_where_it_lies_in_the_file(tmp_path: Path) -> None:
    path = image_graph(tmp_path / "model.onnx")
    file = read_onnx_file(path)
    assert [weight.name for weight in file.weights] == ["first"]
    assert {one.name for one in file.graph.graph.initializer} == {"flat_shape", "second"}
    np.testing.assert_array_equal(weight_values(file, "first"), onnx_values(path, "first"))


def test_a_large_weight_is_found_in_a_file_beside_it(tmp_path: Path) -> None:
    path = image_graph(tmp_path / "model.onnx", external="weights.bin")
    file = read_onnx_file(path)
    assert file.info.weight_files == (tmp_path / "weights.bin",)
    assert {weight.file for weight in file.weights} == {tmp_path / "weights.bin"}
    np.testing.assert_array_equal(weight_values(file, "first"), onnx_values(path, "first"))


def test_small_tensors_of_a_file_beside_it_are_read_with_the_graph(tmp_path: Path) -> None:
    path = image_graph(tmp_path / "model.onnx", external="weights.bin")
    second = next(
        one for one in read_onnx_file(path).graph.graph.initializer if one.name == "second"
    )
    assert second.data_location == TensorProto.DEFAULT
    np.testing.assert_array_equal(numpy_helper.to_array(second), onnx_values(path, "second"))


def test_weights_that_old_files_list_among_the_inputs_are_no_inputs(tmp_path: Path) -> None:
    path = image_graph(tmp_path / "model.onnx")
    model = onnx.load(path)
    model.graph.input.append(
        helper.make_tensor_value_info("first", TensorProto.FLOAT, [3 * SIDE * SIDE, 256])
    )
    onnx.save(model, path)
    assert [one.name for one in describe_graph(path).inputs] == ["image"]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nowhere\.onnx cannot be read.*Pull or copy"):
        describe_graph(tmp_path / "nowhere.onnx")


def test_a_missing_file_of_weights_is_named(tmp_path: Path) -> None:
    path = image_graph(tmp_path / "model.onnx", external="weights.bin")
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ModelError, match=r"keeps weights in .*weights\.bin, which cannot be read"):
        describe_graph(path)


def test_a_file_of_weights_that_breaks_off_is_refused(tmp_path: Path) -> None:
    path = image_graph(tmp_path / "model.onnx", external="weights.bin")
    os.truncate(tmp_path / "weights.bin", 1000)
    with pytest.raises(ModelError, match=r"beyond the end of .*weights\.bin"):
        describe_graph(path)


@pytest.mark.parametrize("location", ["../outside.bin", "/etc/passwd", "a/../../outside.bin"])
def test_weights_outside_the_models_folder_are_refused(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    path = image_graph(folder / "model.onnx", external="weights.bin")
    (tmp_path / "outside.bin").write_bytes((folder / "weights.bin").read_bytes())
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="lies outside the model"):
        describe_graph(path)


@pytest.mark.parametrize("location", ["", ".", "pipe"])
def test_weights_in_what_is_no_file_are_refused(tmp_path: Path, location: str) -> None:
    path = image_graph(tmp_path / "model.onnx", external="weights.bin")
    os.mkfifo(tmp_path / "pipe")
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="which is no file"):
        describe_graph(path)


def test_weights_that_may_not_be_read_are_a_model_error(tmp_path: Path) -> None:
    path = image_graph(tmp_path / "model.onnx", external="weights.bin")
    (tmp_path / "weights.bin").unlink()
    (tmp_path / "weights.bin").symlink_to("weights.bin")  # Nobody can read it, not even root.
    with pytest.raises(ModelError, match="Copy all files of the model's folder"):
        describe_graph(path)


@pytest.mark.parametrize("is_nested", [False, True])
def test_constants_of_nodes_in_other_files_count_as_weights(
    tmp_path: Path, is_nested: bool
) -> None:
    path = image_graph(tmp_path / "model.onnx")
    model = onnx.load(path)
    tensor = numpy_helper.from_array(np.ones(3, np.float32), "constant")
    onnx.external_data_helper.set_external_data(tensor, "constant.bin")
    node = helper.make_node("Constant", [], ["unused"], value=tensor)
    if is_nested:
        branch = helper.make_graph([node], "branch", [], [])
        node = helper.make_node("If", ["unknown"], ["chosen"], then_branch=branch)
    model.graph.node.append(node)
    path.write_bytes(model.SerializeToString())
    assert describe_graph(path).weight_files == (tmp_path / "constant.bin",)
    path.write_bytes(path.read_bytes().replace(b"constant.bin", b"../stant.bin"))
    with pytest.raises(ModelError, match="lies outside the model"):
        describe_graph(path)


def test_a_weight_of_another_size_than_its_shape_is_refused(tmp_path: Path) -> None:
    path = image_graph(tmp_path / "model.onnx")
    model = onnx.load(path)
    first = next(one for one in model.graph.initializer if one.name == "first")
    first.dims[0] += 1
    path.write_bytes(model.SerializeToString())
    needed = math.prod(first.dims) * 4
    with pytest.raises(ModelError, match=rf"'first' has \d+ bytes instead of {needed}"):
        describe_graph(path)


@pytest.mark.parametrize(
    "content", [b"", b"no graph", b"\x00" * 100, b"\xff" * 100, b"<!DOCTYPE html><html></html>"]
)
def test_a_file_that_is_no_graph_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.onnx (is damaged or no ONNX file|has no bytes)"):
        describe_graph(path)


def test_a_graph_that_breaks_off_anywhere_is_refused(tmp_path: Path) -> None:
    path = image_graph(tmp_path / "model.onnx")
    content = path.read_bytes()
    for length in random.Random(1).sample(range(1, len(content)), 60):
        path.write_bytes(content[:length])
        with pytest.raises(ModelError):
            describe_graph(path)


def test_damage_anywhere_gives_an_answer_or_a_model_error(tmp_path: Path) -> None:
    path = image_graph(tmp_path / "model.onnx", external="weights.bin")
    content = path.read_bytes()
    refused = 0
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        try:
            describe_graph(path)
        except ModelError:
            refused += 1
    assert refused > len(content) // 10
