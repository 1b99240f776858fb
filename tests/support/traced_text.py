"""A tiny CLIP text graph as torch's tracing exporter writes OpenCLIP's for one text of 77 tokens.

What it has of the real ones: attention with the length before the batch, the batch merged with the
heads and with the length, targets of reshapes both baked and computed, a mask of full size, and
the rows of all texts flattened to pick the end token's.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto

from support.onnx_towers import GraphBuilder

LENGTH = 77
VOCABULARY = 300
DIM = 16
_WIDTH = 24
_HEADS = 4
_LAYERS = 2


def write_traced_text(
    path: Path, *, vocabulary_rows: int = VOCABULARY, is_causal: bool = True
) -> Path:
    """Write the graph: ``text``, int32 (1, 77), to ``embedding``, unit float32 (1, 16).

    One that is not causal lets all tokens see each other, the padding too.
    """
    build = GraphBuilder(5)
    table = build.weight(vocabulary_rows, _WIDTH)
    rows = build.node("Add", build.node("Gather", table, "text"), build.weight(LENGTH, _WIDTH))
    above = np.triu(np.full((1, 1, LENGTH, LENGTH), -np.inf, dtype=np.float32), 1)
    mask = build.constant(above if is_causal else np.zeros_like(above))
    for _ in range(_LAYERS):
        normal = build.layer_norm(rows, _WIDTH)
        rows = build.node("Add", rows, _attention(build, normal, mask))
        hidden = build.linear(build.layer_norm(rows, _WIDTH), _WIDTH, _WIDTH)
        rows = build.node("Add", rows, build.node("Erf", hidden))
    rows = build.layer_norm(rows, _WIDTH)
    projected = build.node("MatMul", _end_rows(build, rows), build.weight(_WIDTH, DIM))
    build.save(
        path,
        inputs=[("text", TensorProto.INT32, [1, LENGTH])],
        outputs=[("embedding", build.unit(projected), [1, DIM])],
    )
    return path


def _attention(build: GraphBuilder, rows: str, mask: str) -> str:
    each = _WIDTH // _HEADS
    first = build.node("Transpose", rows, perm=[1, 0, 2])
    joined = build.linear(first, _WIDTH, 3 * _WIDTH)
    shape = build.node("Shape", joined)
    leading = build.node("Slice", shape, build.constant([0]), build.constant([2]))
    target = build.node("Concat", leading, build.constant([3, _WIDTH]), axis=0)
    split = build.node("Unsqueeze", build.node("Reshape", joined, target), build.constant([0]))
    split = build.node("Transpose", split, perm=[3, 1, 2, 0, 4])
    split = build.node("Squeeze", split, build.constant([3]))
    heads = []
    for index in range(3):
        part = build.node("Gather", split, build.constant(np.array(index)), axis=0)
        part = build.node("Reshape", part, build.constant([LENGTH, _HEADS, each]))
        part = build.node("Transpose", part, perm=[1, 0, 2])
        heads.append(build.node("Reshape", part, build.constant([1, _HEADS, LENGTH, each])))
    query, key, value = heads
    scores = build.node("MatMul", query, build.node("Transpose", key, perm=[0, 1, 3, 2]))
    weights = build.node("Softmax", build.node("Add", scores, mask), axis=-1)
    mixed = build.node("Transpose", build.node("MatMul", weights, value), perm=[2, 0, 1, 3])
    flat = build.node("Reshape", mixed, build.constant([LENGTH, _WIDTH]))
    flat = build.node("Gemm", flat, build.weight(_WIDTH, _WIDTH), build.weight(_WIDTH))
    back = build.node("Reshape", flat, build.constant([LENGTH, 1, _WIDTH]))
    return build.node("Transpose", back, perm=[1, 0, 2])


def _end_rows(build: GraphBuilder, rows: str) -> str:
    place = build.node("ArgMax", "text", axis=-1, keepdims=0)
    shape = build.node("Shape", rows)
    length = build.node("Gather", shape, build.constant([1]), axis=0)
    width = build.node("Gather", shape, build.constant([2]), axis=0)
    index = build.node("Add", place, build.node("Mul", build.constant([0]), length))
    picked = build.node("Gather", build.node("Flatten", rows, axis=2), index, axis=0)
    target = build.node("Concat", build.constant([-1]), width, axis=0)
    picked = build.node("Reshape", picked, target)
    target = build.node("Concat", build.node("Shape", index), width, axis=0)
    return build.node("Reshape", picked, target)
