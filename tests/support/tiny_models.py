"""A tiny CLIP and a tiny SigLIP with random weights on disk, as published exports lie there.

They have the operations, the input and output names and the configuration files of the real
ones, and run in a millisecond. Vectors say nothing about meaning.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from onnx import TensorProto

from support.onnx_towers import GraphBuilder, Transformer
from support.tokenizers import clip_tokenizer, gemma_tokenizer, vocabulary_size, write_json

Layout = Literal["immich", "transformers"]
Axis = Literal["fixed", "dynamic"]

IMAGE_SIZE = 32
CLIP_LENGTH = 77
SIGLIP_LENGTH = 64
_PATCH = 8
_LAYERS = 2
_HEADS = 2
_CLIP_WIDTH = 32
_CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
_CLIP_STD = [0.26862954, 0.26130258, 0.27577711]
_HALVES = [0.5, 0.5, 0.5]


def write_tiny_clip(
    directory: Path,
    layout: Layout = "immich",
    *,
    dim: int = 32,
    seed: int = 0,
    text_axis: Axis = "dynamic",
    image_axis: Axis = "dynamic",
) -> Path:
    """Write a CLIP below ``directory``, which is made where it is missing, and return it.

    ``text_axis`` "fixed" bakes batch 1 and length 77 into the text graph, and ``image_axis``
    "fixed" batch 1 into the image graph, as Immich's exporter does.
    """
    image_graph, text_graph = _graph_paths(directory, layout)
    tokenizer = clip_tokenizer()
    _write_clip_image(image_graph, layout, dim=dim, seed=seed, axis=image_axis)
    _write_clip_text(
        text_graph, layout, tokenizer=tokenizer, dim=dim, seed=seed + 1, axis=text_axis
    )
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>"}
    tokenizer_config = {
        **special,
        "do_lower_case": True,
        "model_max_length": CLIP_LENGTH,
        "pad_token": "<|endoftext|>",
        "tokenizer_class": "CLIPTokenizer",
        "unk_token": "<|endoftext|>",
    }
    if layout == "immich":
        config: dict[str, Any] = {
            "embed_dim": dim,
            "vision_cfg": {
                "image_size": IMAGE_SIZE,
                "layers": _LAYERS,
                "width": _CLIP_WIDTH,
                "patch_size": _PATCH,
            },
            "text_cfg": {
                "context_length": CLIP_LENGTH,
                "vocab_size": vocabulary_size(tokenizer),
                "width": _CLIP_WIDTH,
                "heads": _HEADS,
                "layers": _LAYERS,
            },
        }
        preprocess = _open_clip_preprocess("shortest", _CLIP_MEAN, _CLIP_STD)
    else:
        config = {
            "model_type": "clip",
            "projection_dim": dim,
            "text_config": {
                "model_type": "clip_text_model",
                "vocab_size": vocabulary_size(tokenizer),
                "hidden_size": _CLIP_WIDTH,
                "eos_token_id": vocabulary_size(tokenizer) - 1,
            },
            "vision_config": {"model_type": "clip_vision_model", "image_size": IMAGE_SIZE},
        }
        preprocess = {
            "crop_size": {"height": IMAGE_SIZE, "width": IMAGE_SIZE},
            "do_center_crop": True,
            "do_convert_rgb": True,
            "do_normalize": True,
            "do_rescale": True,
            "do_resize": True,
            "feature_extractor_type": "CLIPFeatureExtractor",
            "image_mean": _CLIP_MEAN,
            "image_processor_type": "CLIPFeatureExtractor",
            "image_std": _CLIP_STD,
            "resample": 3,
            "rescale_factor": 1 / 255,
            "size": {"shortest_edge": IMAGE_SIZE},
        }
    _write_configuration(directory, layout, config, preprocess, tokenizer, tokenizer_config)
    return directory


def write_tiny_siglip(
    directory: Path,
    layout: Layout = "immich",
    *,
    dim: int = 32,
    seed: int = 0,
    text_axis: Axis = "dynamic",
    image_axis: Axis = "dynamic",
) -> Path:
    """Write a SigLIP 2 below ``directory``, which is made where it is missing, and return it.

    Its text attends to the padding, so that its length is 64 whatever ``text_axis`` says;
    "fixed" bakes batch 1 in as well.
    """
    image_graph, text_graph = _graph_paths(directory, layout)
    tokenizer = gemma_tokenizer()
    _write_siglip_image(image_graph, layout, dim=dim, seed=seed, axis=image_axis)
    _write_siglip_text(
        text_graph, layout, tokenizer=tokenizer, dim=dim, seed=seed + 1, axis=text_axis
    )
    tokenizer_config = {
        "add_bos_token": False,
        "add_eos_token": True,
        "bos_token": "<bos>",
        "do_lower_case": True,
        "eos_token": "<eos>",
        "model_max_length": SIGLIP_LENGTH if layout == "immich" else 10**30,
        "pad_token": "<pad>",
        "padding_side": "right",
        "tokenizer_class": "GemmaTokenizer",
        "unk_token": "<unk>",
    }
    if layout == "immich":
        config: dict[str, Any] = {
            "embed_dim": dim,
            "init_logit_bias": -10,
            "custom_text": True,
            "vision_cfg": {"image_size": IMAGE_SIZE, "timm_pool": "map", "timm_proj": "none"},
            "text_cfg": {
                "context_length": SIGLIP_LENGTH,
                "vocab_size": vocabulary_size(tokenizer),
                "hf_tokenizer_name": "timm/tiny-SigLIP2",
                "tokenizer_kwargs": {"clean": "canonicalize"},
                "width": dim,
                "heads": _HEADS,
                "layers": _LAYERS,
                "no_causal_mask": True,
                "proj_bias": True,
                "pool_type": "last",
            },
        }
        preprocess = _open_clip_preprocess("squash", _HALVES, _HALVES)
    else:
        config = {
            "model_type": "siglip",
            "text_config": {
                "model_type": "siglip_text_model",
                "hidden_size": dim,
                "vocab_size": vocabulary_size(tokenizer),
            },
            "vision_config": {
                "model_type": "siglip_vision_model",
                "hidden_size": dim,
                "image_size": IMAGE_SIZE,
            },
        }
        preprocess = {
            "do_convert_rgb": None,
            "do_normalize": True,
            "do_rescale": True,
            "do_resize": True,
            "image_mean": _HALVES,
            "image_processor_type": "SiglipImageProcessor",
            "image_std": _HALVES,
            "processor_class": "SiglipProcessor",
            "resample": 2,
            "rescale_factor": 1 / 255,
            "size": {"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        }
    _write_configuration(directory, layout, config, preprocess, tokenizer, tokenizer_config)
    return directory


def _graph_paths(directory: Path, layout: Layout) -> tuple[Path, Path]:
    if layout == "immich":
        return directory / "visual" / "model.onnx", directory / "textual" / "model.onnx"
    return directory / "onnx" / "vision_model.onnx", directory / "onnx" / "text_model.onnx"


def _open_clip_preprocess(mode: str, mean: list[float], std: list[float]) -> dict[str, Any]:
    return {
        "size": [IMAGE_SIZE, IMAGE_SIZE],
        "mode": "RGB",
        "mean": mean,
        "std": std,
        "interpolation": "bicubic",
        "resize_mode": mode,
        "fill_color": 0,
    }


def _write_configuration(
    directory: Path,
    layout: Layout,
    config: dict[str, Any],
    preprocess: dict[str, Any],
    tokenizer: dict[str, Any],
    tokenizer_config: dict[str, Any],
) -> None:
    is_immich = layout == "immich"
    text = directory / "textual" if is_immich else directory
    preprocess_file = "visual/preprocess_cfg.json" if is_immich else "preprocessor_config.json"
    write_json(directory / "config.json", config)
    write_json(directory / preprocess_file, preprocess)
    write_json(text / "tokenizer.json", tokenizer)
    write_json(text / "tokenizer_config.json", tokenizer_config)


def _write_clip_image(path: Path, layout: Layout, *, dim: int, seed: int, axis: Axis) -> None:
    build = GraphBuilder(seed)
    source = "image" if layout == "immich" else "pixel_values"
    count = (IMAGE_SIZE // _PATCH) ** 2 + 1
    size = Transformer(
        _CLIP_WIDTH, _LAYERS, _HEADS, "quick_gelu", (1, count) if axis == "fixed" else None
    )
    patches = build.patches(source, patch=_PATCH, width=_CLIP_WIDTH)
    token = build.repeated(build.weight(1, 1, _CLIP_WIDTH), patches)
    rows = build.node("Concat", token, patches, axis=1)
    rows = build.node("Add", rows, build.weight(1, count, _CLIP_WIDTH))
    rows = build.transformer(build.layer_norm(rows, _CLIP_WIDTH), size)
    first = build.node("Gather", rows, build.constant(np.array(0)), axis=1)
    projected = build.node(
        "MatMul", build.layer_norm(first, _CLIP_WIDTH), build.weight(_CLIP_WIDTH, dim)
    )
    batch = 1 if axis == "fixed" else "batch_size"
    inputs = [(source, TensorProto.FLOAT, [batch, 3, IMAGE_SIZE, IMAGE_SIZE])]
    if layout == "immich":
        outputs = [("embedding", build.unit(projected), [batch, dim])]
    else:
        outputs = [
            ("image_embeds", projected, [batch, dim]),
            ("last_hidden_state", rows, [batch, count, _CLIP_WIDTH]),
        ]
    build.save(path, inputs=inputs, outputs=outputs)


def _write_clip_text(
    path: Path, layout: Layout, *, tokenizer: dict[str, Any], dim: int, seed: int, axis: Axis
) -> None:
    build = GraphBuilder(seed)
    source, kind = _text_input(layout)
    is_fixed = axis == "fixed"
    size = Transformer(
        _CLIP_WIDTH, _LAYERS, _HEADS, "quick_gelu", (1, CLIP_LENGTH) if is_fixed else None
    )
    words = build.node(
        "Gather", build.weight(vocabulary_size(tokenizer), _CLIP_WIDTH), source, axis=0
    )
    places = build.weight(CLIP_LENGTH, _CLIP_WIDTH)
    # Finite as in transformers' exports; what lies above the diagonal comes after a word.
    above = np.triu(np.full((CLIP_LENGTH, CLIP_LENGTH), -1e4, dtype=np.float32), 1)
    mask = build.constant(above)
    if not is_fixed:
        length = build.node("Gather", build.node("Shape", source), build.constant([1]), axis=0)
        start, edge = build.constant([0]), build.node("Concat", length, length, axis=0)
        places = build.node("Slice", places, start, length, start)
        mask = build.node("Slice", mask, build.constant([0, 0]), edge, build.constant([0, 1]))
    rows = build.transformer(build.node("Add", words, places), size, mask=mask)
    rows = build.layer_norm(rows, _CLIP_WIDTH)
    ids = build.node("Cast", source, to=TensorProto.INT32)
    if layout == "transformers":
        # Newer exports look for the end token itself instead of the largest id.
        end = build.constant(np.array(vocabulary_size(tokenizer) - 1, dtype=np.int32))
        ids = build.node("Cast", build.node("Equal", ids, end), to=TensorProto.INT32)
    place = build.node("ArgMax", ids, axis=1, keepdims=1)
    last = build.node("GatherND", rows, place, batch_dims=1)
    projected = build.node("MatMul", last, build.weight(_CLIP_WIDTH, dim))
    batch, free = (1, CLIP_LENGTH) if is_fixed else ("batch_size", "sequence_length")
    if layout == "immich":
        outputs = [("embedding", build.unit(projected), [batch, dim])]
    else:
        outputs = [
            ("text_embeds", projected, [batch, dim]),
            ("last_hidden_state", rows, [batch, free, _CLIP_WIDTH]),
        ]
    build.save(path, inputs=[(source, kind, [batch, free])], outputs=outputs)


def _write_siglip_image(path: Path, layout: Layout, *, dim: int, seed: int, axis: Axis) -> None:
    build = GraphBuilder(seed)
    source = "image" if layout == "immich" else "pixel_values"
    count = (IMAGE_SIZE // _PATCH) ** 2
    size = Transformer(dim, _LAYERS, _HEADS, "tanh_gelu", (1, count) if axis == "fixed" else None)
    rows = build.patches(source, patch=_PATCH, width=dim)
    rows = build.node("Add", rows, build.weight(1, count, dim))
    rows = build.layer_norm(build.transformer(rows, size), dim)
    # The attention pooling of SigLIP: one learnt probe asks all patches.
    probe = build.repeated(build.weight(1, 1, dim), rows)
    free = Transformer(dim, 1, _HEADS, "tanh_gelu")
    pooled = build.node("Squeeze", build.attention(probe, rows, free), build.constant([1]))
    batch = 1 if axis == "fixed" else "batch_size"
    inputs = [(source, TensorProto.FLOAT, [batch, 3, IMAGE_SIZE, IMAGE_SIZE])]
    if layout == "immich":
        outputs = [("embedding", build.unit(pooled), [batch, dim])]
    else:
        outputs = [
            ("last_hidden_state", rows, [batch, count, dim]),
            ("pooler_output", pooled, [batch, dim]),
        ]
    build.save(path, inputs=inputs, outputs=outputs)


def _write_siglip_text(
    path: Path, layout: Layout, *, tokenizer: dict[str, Any], dim: int, seed: int, axis: Axis
) -> None:
    build = GraphBuilder(seed)
    source, kind = _text_input(layout)
    is_fixed = axis == "fixed"
    size = Transformer(dim, _LAYERS, _HEADS, "tanh_gelu", (1, SIGLIP_LENGTH) if is_fixed else None)
    words = build.node("Gather", build.weight(vocabulary_size(tokenizer), dim), source, axis=0)
    rows = build.transformer(build.node("Add", words, build.weight(1, SIGLIP_LENGTH, dim)), size)
    rows = build.layer_norm(rows, dim)
    last = build.node("Gather", rows, build.constant(np.array(-1)), axis=1)
    pooled = build.linear(last, dim, dim)
    batch = 1 if is_fixed else "batch_size"
    # An export with free axes names the length too, though only 64 fits the position table.
    free = SIGLIP_LENGTH if is_fixed or layout == "immich" else "sequence_length"
    if layout == "immich":
        outputs = [("embedding", build.unit(pooled), [batch, dim])]
    else:
        outputs = [
            ("last_hidden_state", rows, [batch, free, dim]),
            ("pooler_output", pooled, [batch, dim]),
        ]
    build.save(path, inputs=[(source, kind, [batch, free])], outputs=outputs)


def _text_input(layout: Layout) -> tuple[str, int]:
    return ("text", TensorProto.INT32) if layout == "immich" else ("input_ids", TensorProto.INT64)
