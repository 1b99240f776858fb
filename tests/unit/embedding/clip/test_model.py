from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import pytest

from imagedex.core.errors import ModelError
from imagedex.embedding import EmbeddingModel, TextEncoder
from imagedex.embedding.clip import ClipModel
from imagedex.embedding.clip.file_digests import file_sha256
from imagedex.embedding.clip.files import int8_record_path
from imagedex.embedding.clip.int8_record import Int8Record, QuantisationMethod
from imagedex.embedding.clip.lock_file import LOCK_FILE, LockedFile, LockFile
from imagedex.embedding.runtimes import Precision, Runtime
from imagedex.testing.embedding_model import EmbeddingModelSuite, assert_alike, draw_picture
from support.tiny_models import Axis, Layout, write_tiny_clip, write_tiny_siglip


class TinyModelSuite(EmbeddingModelSuite):
    """The contract, kept by one kind of model in one layout with one runtime."""

    kind: ClassVar[str]
    layout: ClassVar[Layout]
    runtime: ClassVar[Runtime]
    axis: ClassVar[Axis] = "dynamic"
    directory: ClassVar[Path]

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def written(cls) -> Iterator[None]:
        write = write_tiny_clip if cls.kind == "clip" else write_tiny_siglip
        with tempfile.TemporaryDirectory() as directory:
            cls.directory = Path(directory)
            write(cls.directory, cls.layout, text_axis=cls.axis, image_axis=cls.axis)
            yield

    @classmethod
    def make_model(cls) -> EmbeddingModel:
        return ClipModel.open(cls.directory, name="tiny", runtime=cls.runtime)

    def test_no_texts_give_no_vectors(self, model: EmbeddingModel, texts: TextEncoder) -> None:
        assert texts.encode_texts([]).vectors.shape == (0, model.dim)

    def test_many_texts_at_once_are_those_alone(self, texts: TextEncoder) -> None:
        queries = [f"dog {'cat ' * (number % 9)}{number}" for number in range(70)]
        alone = [texts.encode_texts([query]).vectors for query in queries[::7]]
        assert_alike(texts.encode_texts(queries).vectors[::7], np.concatenate(alone))


class TestClipInTheFirstLayoutOnOpenVino(TinyModelSuite):
    kind, layout, runtime = "clip", "immich", Runtime.OPENVINO


class TestClipInTheSecondLayoutOnOpenVino(TinyModelSuite):
    kind, layout, runtime = "clip", "transformers", Runtime.OPENVINO


class TestSiglipInTheFirstLayoutOnOpenVino(TinyModelSuite):
    kind, layout, runtime = "siglip", "immich", Runtime.OPENVINO


class TestSiglipInTheSecondLayoutOnOpenVino(TinyModelSuite):
    kind, layout, runtime = "siglip", "transformers", Runtime.OPENVINO


class TestClipInTheFirstLayoutOnOnnxRuntime(TinyModelSuite):
    kind, layout, runtime = "clip", "immich", Runtime.ONNXRUNTIME


class TestClipInTheSecondLayoutOnOnnxRuntime(TinyModelSuite):
    kind, layout, runtime = "clip", "transformers", Runtime.ONNXRUNTIME


class TestSiglipInTheFirstLayoutOnOnnxRuntime(TinyModelSuite):
    kind, layout, runtime = "siglip", "immich", Runtime.ONNXRUNTIME


class TestSiglipInTheSecondLayoutOnOnnxRuntime(TinyModelSuite):
    kind, layout, runtime = "siglip", "transformers", Runtime.ONNXRUNTIME


class TestClipWithBakedAxesOnOpenVino(TinyModelSuite):
    kind, layout, runtime, axis = "clip", "immich", Runtime.OPENVINO, "fixed"


class TestClipWithBakedAxesOnOnnxRuntime(TinyModelSuite):
    kind, layout, runtime, axis = "clip", "immich", Runtime.ONNXRUNTIME, "fixed"


class TestSiglipWithBakedAxesOnOnnxRuntime(TinyModelSuite):
    kind, layout, runtime, axis = "siglip", "immich", Runtime.ONNXRUNTIME, "fixed"


TEXTS = ["", "a dog", "A Dog!", "a photo of a dog, isn't it 12?", "dog " * 200]


@pytest.mark.parametrize("layout", ["immich", "transformers"])
def test_a_text_at_its_real_length_is_the_same_as_padded(tmp_path: Path, layout: Layout) -> None:
    vectors = []
    for axis in ("fixed", "dynamic"):
        model = open_tiny(write_tiny_clip(tmp_path / axis, layout, text_axis=axis))
        assert (model.specification.text.padded_length is None) == (axis == "dynamic")
        vectors.append(model.load_text_encoder(threads=1).encode_texts(TEXTS).vectors)
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-6)


def test_siglip_pads_to_its_whole_length_whatever_its_graph_allows(tmp_path: Path) -> None:
    model = open_tiny(write_tiny_siglip(tmp_path, "transformers"))
    assert model.specification.text.padded_length == 64


def test_both_layouts_of_a_model_mean_the_same(tmp_path: Path) -> None:
    # The tiny models take their weights from a seed; only where pixels are cropped differs.
    models = [open_tiny(write_tiny_clip(tmp_path / one, one)) for one in ("immich", "transformers")]
    picture = draw_picture(1, (64, 64))
    first, second = (encoded(model, picture) for model in models)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("layout", ["immich", "transformers"])
@pytest.mark.parametrize("write", [write_tiny_clip, write_tiny_siglip])
def test_large_letters_mean_the_same_as_small_ones(
    tmp_path: Path, layout: Layout, write: Callable[[Path, Layout], Path]
) -> None:
    texts = open_tiny(write(tmp_path, layout)).load_text_encoder(threads=1)
    large, small = texts.encode_texts(["A DOG", "a dog"]).vectors
    np.testing.assert_array_equal(large, small)


class TestMultilingualTower:
    """A text graph with a mask beside the images of another repository, as M-CLIP has it."""

    @pytest.fixture(params=["fixed", "dynamic"])
    def directory(self, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
        write_tiny_clip(tmp_path, "transformers")
        (tmp_path / "onnx" / "text_model.onnx").unlink()
        write_tiny_clip(tmp_path / "other", "immich")
        (tmp_path / "other" / "textual").rename(tmp_path / "textual")
        length = 77 if request.param == "fixed" else "length"
        onnx.save(masked_mean_graph(length), str(tmp_path / "textual" / "model.onnx"))
        return tmp_path

    def test_padding_is_masked(self, directory: Path) -> None:
        texts = open_tiny(directory).load_text_encoder(threads=1)
        together = texts.encode_texts(["dog", "a dog in a park", ""]).vectors
        alone = np.concatenate(
            [texts.encode_texts([text]).vectors for text in ("dog", "a dog in a park", "")]
        )
        np.testing.assert_allclose(together, alone, atol=1e-6)
        assert abs(float(together[0] @ together[1])) < 0.99

    def test_it_serves_the_index_of_the_other_text_tower(
        self, directory: Path, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        plain = write_tiny_clip(tmp_path_factory.mktemp("plain"), "transformers")
        assert open_tiny(directory).fingerprint == open_tiny(plain).fingerprint


class TestFingerprint:
    @pytest.fixture
    def directory(self, tmp_path: Path) -> Path:
        return write_tiny_clip(tmp_path / "model")

    def test_it_names_the_precision(self, directory: Path) -> None:
        assert open_tiny(directory).fingerprint.startswith("clip-fp32-")

    def test_it_is_the_same_wherever_the_model_lies(self, directory: Path, tmp_path: Path) -> None:
        before = open_tiny(directory).fingerprint
        shutil.copytree(directory, tmp_path / "copy")
        assert open_tiny(tmp_path / "copy").fingerprint == before

    def test_other_weights_have_another_one(self, directory: Path, tmp_path: Path) -> None:
        other = write_tiny_clip(tmp_path / "other", seed=5)
        assert open_tiny(directory).fingerprint != open_tiny(other).fingerprint

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("interpolation", "bilinear"),
            ("resize_mode", "squash"),
            ("mean", [0.5, 0.5, 0.5]),
            ("std", [0.25, 0.25, 0.25]),
            ("crop_rounding", "down"),
        ],
    )
    def test_other_preprocessing_has_another_one(
        self, directory: Path, field: str, value: object
    ) -> None:
        before = open_tiny(directory).fingerprint
        edit(directory / "visual" / "preprocess_cfg.json", {field: value})
        assert open_tiny(directory).fingerprint != before

    def test_reduced_decoding_and_precision_are_part_of_it(self, directory: Path) -> None:
        opened = [
            ClipModel.open(directory, name="a"),
            ClipModel.open(directory, name="a", reduced_decoding=False),
            ClipModel.open(directory, name="a", precision=Precision.BF16),
        ]
        assert len({model.fingerprint for model in opened}) == 3

    def test_name_text_tower_and_runtime_are_not(self, directory: Path, tmp_path: Path) -> None:
        before = open_tiny(directory).fingerprint
        other = write_tiny_clip(tmp_path / "other", seed=5)
        shutil.copy(other / "textual" / "model.onnx", directory / "textual" / "model.onnx")
        again = ClipModel.open(directory, name="other", runtime=Runtime.ONNXRUNTIME)
        assert again.fingerprint == before

    def test_weights_beside_the_graph_count(self, directory: Path) -> None:
        graph = directory / "visual" / "model.onnx"
        onnx.save(
            onnx.load(str(graph)),
            str(graph),
            save_as_external_data=True,
            location="weights",
            size_threshold=0,
        )
        before = open_tiny(directory).fingerprint
        weights = directory / "visual" / "weights"
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
        assert open_tiny(directory).fingerprint != before

    def test_files_that_changed_since_are_refused_when_loaded(
        self, directory: Path, tmp_path: Path
    ) -> None:
        model = open_tiny(directory)
        travelled: ClipModel = pickle.loads(pickle.dumps(with_fingerprint(model)))
        travelled.load_image_encoder(threads=1)
        other = write_tiny_clip(tmp_path / "other", seed=5)
        shutil.copy(other / "visual" / "model.onnx", directory / "visual" / "model.onnx")
        for load in (travelled.load_image_encoder, travelled.load_text_encoder):
            with pytest.raises(ModelError, match="Restart the server, or copy the same files"):
                load(threads=1)


class TestDigests:
    def test_the_lock_is_believed_while_size_and_time_agree(self, tmp_path: Path) -> None:
        path = tmp_path / "a.onnx"
        path.write_bytes(b"12345")
        state = path.stat()
        lock = LockFile("m", (), (LockedFile("a.onnx", 5, "f" * 64, state.st_mtime_ns),))
        assert file_sha256(path, directory=tmp_path, lock=lock) == "f" * 64
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
        real = file_sha256(path, directory=tmp_path, lock=lock)
        assert real == "5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5"
        assert file_sha256(path, directory=tmp_path, lock=None) == real

    def test_a_changed_file_is_read_again(self, tmp_path: Path) -> None:
        path = tmp_path / "a.onnx"
        path.write_bytes(b"1")
        first = file_sha256(path, directory=tmp_path, lock=None)
        path.write_bytes(b"22")
        assert file_sha256(path, directory=tmp_path, lock=None) != first

    def test_a_file_that_is_gone_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"gone\.onnx' cannot be read"):
            file_sha256(tmp_path / "gone.onnx", directory=tmp_path, lock=None)

    def test_a_damaged_lock_does_not_go_unnoticed(self, tmp_path: Path) -> None:
        directory = write_tiny_clip(tmp_path)
        (directory / LOCK_FILE).write_text("{}")
        with pytest.raises(ModelError, match="lock file"):
            _ = open_tiny(directory).fingerprint


class TestContradictions:
    """What is missing or does not fit together is said when the model is opened."""

    @pytest.mark.parametrize(
        ("layout", "file", "changes", "said"),
        [
            ("immich", "config.json", {"embed_dim": None}, "embed_dim in .* is missing"),
            ("immich", "config.json", {"embed_dim": "32"}, "expected is a whole number"),
            ("immich", "config.json", {"embed_dim": 64}, "64 by .*config.* 32 by .*visual"),
            ("immich", "config.json", {"vision_cfg": {"image_size": 64}}, "64, but .*32 x 32"),
            ("immich", "config.json", {"text_cfg": []}, "should be a JSON object"),
            (
                "immich",
                "config.json",
                {"text_cfg": {"tokenizer_kwargs": {"clean": "other"}}},
                "tokenizer_kwargs.clean .*'other'",
            ),
            ("immich", "visual/preprocess_cfg.json", {"mean": [0.5, 0.5]}, "three numbers"),
            ("immich", "visual/preprocess_cfg.json", {"mean": [0.5, "x", 1]}, "three numbers"),
            ("immich", "visual/preprocess_cfg.json", {"mean": [10**400, 1, 1]}, "three numbers"),
            ("immich", "visual/preprocess_cfg.json", {"mean": [True, 1, 1]}, "three numbers"),
            ("immich", "visual/preprocess_cfg.json", {"size": 10**9}, "from 1 to 65,536"),
            ("immich", "visual/preprocess_cfg.json", {"std": None}, "std in .* is missing"),
            ("immich", "visual/preprocess_cfg.json", {"size": [16, 16]}, "the size that|of height"),
            ("immich", "visual/preprocess_cfg.json", {"size": "big"}, "whole number"),
            ("immich", "visual/preprocess_cfg.json", {"mode": "L"}, "'RGB'"),
            ("immich", "visual/preprocess_cfg.json", {"fill_color": "red"}, "fill_color"),
            ("immich", "visual/preprocess_cfg.json", {"interpolation": "random"}, "random"),
            ("immich", "textual/tokenizer_config.json", {"padding_side": "up"}, "left or right"),
            ("transformers", "config.json", {"model_type": "bert"}, r"'bert'.*\['clip', 'siglip'"),
            ("transformers", "config.json", {"projection_dim": 48}, "48 by .*config"),
            (
                "transformers",
                "preprocessor_config.json",
                {"image_processor_type": "Siglip2ImageProcessor"},
                "Siglip2ImageProcessor.*SiglipImageProcessor",
            ),
            ("transformers", "preprocessor_config.json", {"do_normalize": False}, "do_normalize"),
            ("transformers", "preprocessor_config.json", {"rescale_factor": 1.0}, "1/255"),
            ("transformers", "preprocessor_config.json", {"resample": 9}, "resample.*bicubic"),
            ("transformers", "preprocessor_config.json", {"crop_size": 16}, "16.*32 x 32"),
            (
                "transformers",
                "preprocessor_config.json",
                {"size": {"longest_edge": 32}},
                "size .*longest_edge.*shortest_edge",
            ),
        ],
    )
    def test_a_field_that_does_not_fit_is_named(
        self,
        tmp_path: Path,
        layout: Layout,
        file: str,
        changes: dict[str, Any],
        said: str,
    ) -> None:
        edit(write_tiny_clip(tmp_path, layout) / file, changes)
        with pytest.raises(ModelError, match=said):
            open_tiny(tmp_path)

    def test_a_context_length_other_than_the_graphs_is_refused(self, tmp_path: Path) -> None:
        edit(
            write_tiny_clip(tmp_path, text_axis="fixed") / "config.json",
            {"text_cfg": {"context_length": 64}},
        )
        with pytest.raises(ModelError, match=r"64 tokens, but the graph .* takes 77"):
            open_tiny(tmp_path)

    def test_siglip_without_its_pad_token_is_refused(self, tmp_path: Path) -> None:
        (write_tiny_siglip(tmp_path) / "textual" / "tokenizer_config.json").unlink()
        with pytest.raises(ModelError, match="names the token that short texts are padded with"):
            open_tiny(tmp_path)

    def test_a_pad_token_beyond_the_end_token_does_not_become_the_end(self, tmp_path: Path) -> None:
        before = open_tiny(write_tiny_clip(tmp_path)).load_text_encoder(threads=1)
        expected = before.encode_texts(TEXTS).vectors
        edit(tmp_path / "textual" / "tokenizer_config.json", {"pad_token": "<pad>"})
        tokenizer = json.loads((tmp_path / "textual" / "tokenizer.json").read_text())
        added = {**tokenizer["added_tokens"][0], "id": 525, "content": "<pad>"}
        edit(
            tmp_path / "textual" / "tokenizer.json",
            {"added_tokens": [*tokenizer["added_tokens"], added]},
        )
        found = open_tiny(tmp_path).load_text_encoder(threads=1).encode_texts(TEXTS).vectors
        np.testing.assert_array_equal(found, expected)

    def test_clip_needs_none(self, tmp_path: Path) -> None:
        before = open_tiny(write_tiny_clip(tmp_path)).load_text_encoder(threads=1)
        expected = before.encode_texts(TEXTS).vectors
        (tmp_path / "textual" / "tokenizer_config.json").unlink()
        found = open_tiny(tmp_path).load_text_encoder(threads=1).encode_texts(TEXTS).vectors
        np.testing.assert_array_equal(found, expected)

    def test_two_halves_that_are_swapped_are_refused(self, tmp_path: Path) -> None:
        onnx_files = write_tiny_clip(tmp_path, "transformers") / "onnx"
        (onnx_files / "vision_model.onnx").rename(onnx_files / "x")
        (onnx_files / "text_model.onnx").rename(onnx_files / "vision_model.onnx")
        (onnx_files / "x").rename(onnx_files / "text_model.onnx")
        with pytest.raises(ModelError, match=r"text_embeds.*image_embeds"):
            open_tiny(tmp_path)

    def test_a_text_graph_as_image_graph_is_refused(self, tmp_path: Path) -> None:
        write_tiny_clip(tmp_path)
        shutil.copy(tmp_path / "textual" / "model.onnx", tmp_path / "visual" / "model.onnx")
        with pytest.raises(ModelError, match=r"takes text int32 \(\?, \?\); expected is one input"):
            open_tiny(tmp_path)

    @pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
    def test_a_file_that_is_no_json_is_named(self, tmp_path: Path, content: bytes) -> None:
        (write_tiny_clip(tmp_path) / "config.json").write_bytes(content)
        with pytest.raises(ModelError, match=r"config\.json' is no JSON.*pull"):
            open_tiny(tmp_path)

    @pytest.mark.parametrize("content", [b"", b"no graph"])
    def test_a_file_that_is_no_graph_is_a_model_error(self, tmp_path: Path, content: bytes) -> None:
        (write_tiny_clip(tmp_path) / "textual" / "model.onnx").write_bytes(content)
        with pytest.raises(ModelError, match=r"textual/model\.onnx"):
            open_tiny(tmp_path)

    def test_int8_without_its_graphs_names_the_command(self, tmp_path: Path) -> None:
        write_tiny_clip(tmp_path)
        with pytest.raises(ModelError, match=f"imagedex models quantize {tmp_path} --images DIR"):
            ClipModel.open(tmp_path, name="tiny", precision=Precision.INT8)


def test_int8_runs_the_graphs_beside_the_others(tmp_path: Path) -> None:
    write_tiny_clip(tmp_path)
    other = write_tiny_clip(tmp_path / "other", seed=3)
    for half in ("visual", "textual"):
        graph = tmp_path / half / "other.onnx"
        shutil.copy(other / half / "model.onnx", graph)
        file = LockedFile(graph.name, graph.stat().st_size, "0" * 64, mtime_ns=0)
        record = Int8Record(QuantisationMethod.DYNAMIC, (file,), 0, {})
        int8_record_path(tmp_path / half / "model.onnx").write_text(record.to_json())
    model = ClipModel.open(
        tmp_path, name="a", precision=Precision.INT8, runtime=Runtime.ONNXRUNTIME
    )
    assert model.fingerprint.startswith("clip-int8-")
    picture = draw_picture(1)
    for found, expected in zip(
        encoded(model, picture), encoded(open_tiny(other), picture), strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("runtime", [Runtime.OPENVINO, Runtime.ONNXRUNTIME])
def test_a_graph_that_normalises_pixels_itself_gets_them_as_they_are(
    tmp_path: Path, runtime: Runtime
) -> None:
    pixels = open_tiny(write_tiny_clip(tmp_path)).preprocess(draw_picture(1))[None]
    expected = open_tiny(tmp_path).load_image_encoder(threads=1).encode_images(pixels)
    normalise_inside(tmp_path / "visual" / "model.onnx")
    model = ClipModel.open(tmp_path, name="tiny", runtime=runtime)
    found = model.load_image_encoder(threads=1).encode_images(pixels)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_opening_a_model_loads_no_runtime(tmp_path: Path) -> None:
    write_tiny_clip(tmp_path)
    script = (
        "import sys, pickle; from pathlib import Path;"
        "from imagedex.embedding.clip import ClipModel;"
        "model = ClipModel.open(Path(sys.argv[1]), name='tiny'); model.fingerprint;"
        "pickle.loads(pickle.dumps(model.preprocess));"
        "assert not {'onnxruntime', 'openvino', 'tokenizers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)


def open_tiny(directory: Path) -> ClipModel:
    return ClipModel.open(directory, name="tiny", runtime=Runtime.ONNXRUNTIME)


def with_fingerprint(model: ClipModel) -> ClipModel:
    """Return ``model`` after its fingerprint was asked for, as it travels to workers."""
    assert model.fingerprint
    return model


def encoded(model: ClipModel, picture: Any) -> tuple[Any, Any]:
    """Return the vectors of ``picture`` and of some texts."""
    pixels = model.preprocess(picture)[None]
    return (
        model.load_image_encoder(threads=1).encode_images(pixels),
        model.load_text_encoder(threads=1).encode_texts(TEXTS).vectors,
    )


def edit(path: Path, changes: dict[str, Any]) -> None:
    """Change fields of a JSON file; those of an object within it one by one."""
    content = json.loads(path.read_text())
    for name, value in changes.items():
        if isinstance(value, dict) and isinstance(content.get(name), dict) and name != "size":
            content[name] |= value
        else:
            content[name] = value
    path.write_text(json.dumps(content))


def masked_mean_graph(length: int | str) -> onnx.ModelProto:
    """Return a graph that averages the embeddings of tokens that its mask does not leave out."""
    helper, kinds = onnx.helper, onnx.TensorProto
    table = np.random.default_rng(7).standard_normal((525, 32)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=kinds.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["column"]),
        helper.make_node("Mul", ["rows", "column"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "second"], ["sum"], keepdims=0),
        helper.make_node("ReduceSum", ["mask", "second"], ["count"], keepdims=1),
        helper.make_node("Div", ["sum", "count"], ["embedding"]),
    ]
    batch = 1 if isinstance(length, int) else "batch"
    graph = helper.make_graph(
        nodes,
        "masked_mean",
        [
            helper.make_tensor_value_info(name, kinds.INT32, [batch, length])
            for name in ("input_ids", "attention_mask")
        ],
        [helper.make_tensor_value_info("embedding", kinds.FLOAT, [batch, 32])],
        [
            onnx.numpy_helper.from_array(table, "table"),
            onnx.numpy_helper.from_array(np.array([2]), "last"),
            onnx.numpy_helper.from_array(np.array([1]), "second"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def normalise_inside(path: Path) -> None:
    """Rewrite an image graph to take uint8 (batch, height, width, 3), as newer exports do."""
    helper, kinds = onnx.helper, onnx.TensorProto
    model = onnx.load(str(path))
    preprocess = json.loads((path.parent / "preprocess_cfg.json").read_text())
    scale = 1 / (255 * np.array(preprocess["std"]))
    shift = -np.array(preprocess["mean"]) / np.array(preprocess["std"])
    steps = [
        helper.make_node("Cast", ["bytes"], ["floats"], to=kinds.FLOAT),
        helper.make_node("Mul", ["floats", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "shift"], ["shifted"]),
        helper.make_node("Transpose", ["shifted"], [model.graph.input[0].name], perm=[0, 3, 1, 2]),
    ]
    nodes = [*steps, *model.graph.node]
    del model.graph.node[:], model.graph.input[:]
    model.graph.node.extend(nodes)
    model.graph.input.append(helper.make_tensor_value_info("bytes", kinds.UINT8, ["n", 32, 32, 3]))
    for name, values in (("scale", scale), ("shift", shift)):
        model.graph.initializer.append(
            onnx.numpy_helper.from_array(values.astype(np.float32), name)
        )
    onnx.save(model, str(path))
