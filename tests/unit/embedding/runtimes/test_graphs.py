from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from imagedex.core.errors import ModelError
from imagedex.embedding.runtimes import (
    PIXELS,
    GraphRunner,
    PixelInput,
    Precision,
    Runtime,
    load_graph,
    supports,
)
from support.small_graphs import DIM, SIDE, image_graph, text_graph

MEAN, STD = (0.48, 0.45, 0.40), (0.26, 0.27, 0.28)
INPUT = PixelInput("image", MEAN, STD, height=SIDE, width=SIDE)
PICTURES = np.random.default_rng(2).integers(0, 256, (5, SIDE, SIDE, 3), dtype=np.uint8)

Load = Callable[..., GraphRunner]


def runtimes() -> list[Runtime]:
    """Return the runtimes for CPUs that this machine has: OpenVINO is on x86-64 Linux only."""
    return [
        runtime
        for runtime in (Runtime.ONNXRUNTIME, Runtime.OPENVINO)
        if supports(Precision.FP32, runtime) is None
    ]


@pytest.fixture(params=runtimes())
def runtime(request: pytest.FixtureRequest) -> Runtime:
    found: Runtime = request.param
    return found


def load(path: Path, runtime: Runtime, output: str = "embedding") -> GraphRunner:
    """Load a graph with a pixel input."""
    return load_graph(path, threads=1, output=output, runtime=runtime, pixels=INPUT)


def expected(
    path: Path, pictures: NDArray[np.uint8], *, normalises: bool = True
) -> NDArray[np.float64]:
    """Return the embeddings as numpy computes them in double precision."""
    weights = {one.name: numpy_helper.to_array(one) for one in onnx.load(path).graph.initializer}
    floats = pictures.astype(np.float64)
    if normalises:
        floats = (floats / 255 - MEAN) / STD
    flat = floats.transpose(0, 3, 1, 2).reshape(len(pictures), -1)
    product: NDArray[np.float64] = flat @ weights["first"] @ weights["second"]
    return product


def assert_close(found: NDArray[np.float32], wanted: NDArray[np.float64]) -> None:
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_pixels_are_normalised_and_laid_out_as_the_graph_takes_them(
    tmp_path: Path, runtime: Runtime
) -> None:
    path = image_graph(tmp_path / "model.onnx")
    runner = load(path, runtime)
    assert runner.runtime is runtime
    assert_close(runner.run({PIXELS: PICTURES}), expected(path, PICTURES))


def test_a_batch_of_any_size_gives_each_picture_its_own_row(
    tmp_path: Path, runtime: Runtime
) -> None:
    path = image_graph(tmp_path / "model.onnx")
    runner = load(path, runtime)
    for count in (3, 1, 5, 2):
        assert_close(runner.run({PIXELS: PICTURES[:count]}), expected(path, PICTURES[:count]))


def test_a_graph_for_one_picture_takes_several(tmp_path: Path, runtime: Runtime) -> None:
    path = image_graph(tmp_path / "model.onnx", batch=1)
    assert_close(load(path, runtime).run({PIXELS: PICTURES}), expected(path, PICTURES))


def test_a_graph_with_open_edges_takes_the_models_size(tmp_path: Path, runtime: Runtime) -> None:
    path = image_graph(tmp_path / "model.onnx", side="edge")
    assert_close(load(path, runtime).run({PIXELS: PICTURES}), expected(path, PICTURES))


@pytest.mark.parametrize("batch", ["batch", 1])
def test_a_graph_that_normalises_by_itself_is_given_the_pixels(
    tmp_path: Path, runtime: Runtime, batch: int | str
) -> None:
    path = image_graph(tmp_path / "model.onnx", takes_bytes=True, batch=batch)
    found = load(path, runtime).run({PIXELS: PICTURES})
    assert_close(found, expected(path, PICTURES, normalises=False))


def test_weights_in_a_file_beside_the_graph_are_found(tmp_path: Path, runtime: Runtime) -> None:
    path = image_graph(tmp_path / "model.onnx", external="weights.bin")
    assert_close(load(path, runtime).run({PIXELS: PICTURES}), expected(path, PICTURES))


def test_pictures_need_not_lie_in_order_in_memory(tmp_path: Path, runtime: Runtime) -> None:
    path = image_graph(tmp_path / "model.onnx")
    backwards = PICTURES[::-1]
    assert_close(load(path, runtime).run({PIXELS: backwards}), expected(path, backwards))


def test_pictures_that_may_not_be_written_are_taken(tmp_path: Path, runtime: Runtime) -> None:
    path = image_graph(tmp_path / "model.onnx")
    frozen = PICTURES.copy()
    frozen.flags.writeable = False
    assert_close(load(path, runtime).run({PIXELS: frozen}), expected(path, PICTURES))


def test_the_chosen_output_is_returned(tmp_path: Path, runtime: Runtime) -> None:
    path = image_graph(tmp_path / "model.onnx", hidden=256)
    assert load(path, runtime, "hidden").run({PIXELS: PICTURES}).shape == (5, 256)
    assert load(path, runtime, "embedding").run({PIXELS: PICTURES}).shape == (5, DIM)


def test_an_output_is_the_callers_own(tmp_path: Path, runtime: Runtime) -> None:
    path = image_graph(tmp_path / "model.onnx")
    runner = load(path, runtime)
    first = runner.run({PIXELS: PICTURES[:2]})
    kept = first.copy()
    runner.run({PIXELS: PICTURES[2:4]})
    np.testing.assert_array_equal(first, kept)
    first[:] = 0
    np.testing.assert_array_equal(runner.run({PIXELS: PICTURES[:2]}), kept)


def test_several_threads_get_their_own_results(tmp_path: Path, runtime: Runtime) -> None:
    runner = load_graph(
        text_graph(tmp_path / "text.onnx"), threads=2, output="doubled", runtime=runtime
    )
    queries = [np.full((1, 3 + number % 4), number, dtype=np.int64) for number in range(200)]
    with ThreadPoolExecutor(max_workers=6) as pool:
        found = list(pool.map(lambda ids: runner.run({"ids": ids}), queries))
    for ids, doubled in zip(queries, found, strict=True):
        np.testing.assert_array_equal(doubled, 2 * ids)


def test_weights_that_have_to_be_constants_are_read_with_the_graph(
    tmp_path: Path, runtime: Runtime
) -> None:
    # OpenVINO converts a MatMulNBits only if its weights are in the graph at once.
    rows, columns, block = 512, 1024, 32
    random = np.random.default_rng(3)
    packed = random.integers(0, 256, (columns, rows // block, block), dtype=np.uint8)
    scales = random.random((columns, rows // block), dtype=np.float32)
    graph = helper.make_graph(
        [
            helper.make_node(
                "MatMulNBits",
                ["image", "packed", "scales"],
                ["embedding"],
                domain="com.microsoft",
                K=rows,
                N=columns,
                bits=8,
                block_size=block,
            )
        ],
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", rows])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", columns])],
        [
            numpy_helper.from_array(packed, "packed"),
            numpy_helper.from_array(scales, "scales"),
        ],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    runner = load_graph(path, threads=1, output="embedding", runtime=runtime)
    rows_in = random.standard_normal((2, rows)).astype(np.float32)
    weights = (packed.astype(np.float64) - 128) * scales[:, :, None]
    wanted = rows_in @ weights.reshape(columns, rows).T
    found = runner.run({"image": rows_in})
    assert np.abs(found - wanted).max() < 0.05 * np.abs(wanted).max()


class TestRefusals:
    def test_an_output_that_is_not_there_is_named_beside_those_that_are(
        self, tmp_path: Path, runtime: Runtime
    ) -> None:
        path = image_graph(tmp_path / "model.onnx")
        with pytest.raises(ModelError, match=r"no output 'vector'; it has hidden, embedding"):
            load(path, runtime, "vector")

    def test_an_input_that_is_not_there_is_named_beside_those_that_are(
        self, tmp_path: Path, runtime: Runtime
    ) -> None:
        path = image_graph(tmp_path / "model.onnx")
        pixels = PixelInput("pixel_values", MEAN, STD, SIDE, SIDE)
        with pytest.raises(ModelError, match=r"no input 'pixel_values'; it has image"):
            load_graph(path, threads=1, output="embedding", runtime=runtime, pixels=pixels)

    def test_another_size_than_the_graphs_is_refused(
        self, tmp_path: Path, runtime: Runtime
    ) -> None:
        path = image_graph(tmp_path / "model.onnx")
        pixels = PixelInput("image", MEAN, STD, SIDE + 1, SIDE)
        with pytest.raises(ModelError, match=r"takes float32 of shape \(None, 3, 8, 8\).*3, 9, 8"):
            load_graph(path, threads=1, output="embedding", runtime=runtime, pixels=pixels)

    def test_a_graph_for_a_fixed_number_of_pictures_is_refused(
        self, tmp_path: Path, runtime: Runtime
    ) -> None:
        with pytest.raises(ModelError, match="with n open or 1"):
            load(image_graph(tmp_path / "model.onnx", batch=4), runtime)

    def test_no_threads_are_refused(self, tmp_path: Path, runtime: Runtime) -> None:
        path = text_graph(tmp_path / "text.onnx")
        with pytest.raises(ValueError, match="at least one thread"):
            load_graph(path, threads=0, output="doubled", runtime=runtime)

    def test_inputs_that_do_not_fit_are_a_model_error_and_the_next_ones_are_run(
        self, tmp_path: Path, runtime: Runtime
    ) -> None:
        path = image_graph(tmp_path / "model.onnx")
        runner = load(path, runtime)
        with pytest.raises(ModelError, match=r"model\.onnx failed on inputs"):
            runner.run({PIXELS: np.zeros((1, SIDE, SIDE + 1, 3), dtype=np.uint8)})
        assert_close(runner.run({PIXELS: PICTURES}), expected(path, PICTURES))

    def test_an_operator_that_nobody_knows_is_a_model_error(
        self, tmp_path: Path, runtime: Runtime
    ) -> None:
        path = text_graph(tmp_path / "text.onnx")
        model = onnx.load(path)
        model.graph.node[1].op_type = "Frobnicate"
        onnx.save(model, path)
        with pytest.raises(ModelError, match=r"cannot load .*text\.onnx.*get the model again"):
            load_graph(path, threads=1, output="doubled", runtime=runtime)
