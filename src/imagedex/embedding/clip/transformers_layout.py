"""The configuration of the second layout: exports of transformers checkpoints.

``config.json`` and ``preprocessor_config.json`` are those of transformers, which leaves out of
the former what equals the default of the model's class. The defaults here are those of
``CLIPConfig`` and ``SiglipConfig`` (https://huggingface.co/docs/transformers/model_doc/clip,
https://huggingface.co/docs/transformers/model_doc/siglip).
"""

from __future__ import annotations

from dataclasses import dataclass

from imagedex.embedding.clip.configuration import (
    Configuration,
    TextConfiguration,
    require_size,
)
from imagedex.embedding.clip.files import ModelFiles
from imagedex.embedding.clip.image_spec import ImageSpec
from imagedex.embedding.clip.json_fields import JsonFields
from imagedex.embedding.clip.text_spec import Cleaning


@dataclass(frozen=True, slots=True)
class _Family:
    """What a model class has by definition."""

    context_length: int  # Unless config.json has another one.
    is_causal: bool
    image_outputs: tuple[str, ...]
    text_outputs: tuple[str, ...]


_FAMILIES = {
    # Its pooler_output is not projected yet, so that it is no substitute.
    "clip": _Family(77, True, ("image_embeds",), ("text_embeds",)),
    # It was trained without a mask on texts of full length, and has no projection.
    "siglip": _Family(
        64, False, ("image_embeds", "pooler_output"), ("text_embeds", "pooler_output")
    ),
}
_CLIP_DIM = 512
# Whether an image size that is one number means the short edge, with a crop after it.
_PROCESSORS = {
    "CLIPFeatureExtractor": True,
    "CLIPImageProcessor": True,
    "CLIPImageProcessorFast": True,
    "CLIPImageProcessorPil": True,
    "SiglipImageProcessor": False,
    "SiglipImageProcessorFast": False,
    "SiglipImageProcessorPil": False,
}
# The numbers of PIL.Image.Resampling.
_INTERPOLATIONS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
_FULL_RANGE = 1 / 255


def read_transformers_configuration(files: ModelFiles) -> Configuration:
    """Return what the files of a model in the second layout say. Raises ModelError."""
    config = JsonFields.load(files.config)
    kind = config.text("model_type")
    family = _FAMILIES.get(kind)
    if family is None:
        raise config.fault("model_type", kind, f"one of {sorted(_FAMILIES)}")
    image = read_image_processor(JsonFields.load(files.image_preprocess))
    vision = config.section("vision_config")
    if "image_size" in vision:
        require_size(vision, "image_size", vision.count("image_size"), image)
    text = config.section("text_config")
    return Configuration(
        dim=config.count("projection_dim", _CLIP_DIM) if kind == "clip" else _siglip_dim(text),
        image=image,
        text=TextConfiguration(
            context_length=text.count("max_position_embeddings", family.context_length),
            is_causal=family.is_causal,
            is_masked=family.is_causal,
            cleaning=_read_cleaning(files),
        ),
        image_outputs=family.image_outputs,
        text_outputs=family.text_outputs,
    )


def _siglip_dim(text: JsonFields) -> int | None:
    for name in ("projection_size", "hidden_size"):
        if name in text:
            return text.count(name)
    return None


def _read_cleaning(files: ModelFiles) -> Cleaning:
    if files.tokenizer_config is None:
        return Cleaning.NONE
    # SigLIP 2 was trained on small letters, but its tokenizer.json, which is Gemma's, keeps large
    # ones; this flag is where its files say so.
    lower = JsonFields.load(files.tokenizer_config).flag("do_lower_case", False)
    return Cleaning.LOWER if lower else Cleaning.NONE


def read_image_processor(preprocess: JsonFields) -> ImageSpec:
    """Return what a preprocessor_config.json says. Raises ModelError."""
    kind_field = (
        "image_processor_type" if "image_processor_type" in preprocess else "feature_extractor_type"
    )
    kind = preprocess.text(kind_field)
    if kind not in _PROCESSORS:
        raise preprocess.fault(kind_field, kind, f"one of {sorted(_PROCESSORS)}")
    crops = _PROCESSORS[kind]
    for step in ("do_resize", "do_rescale", "do_normalize"):
        if not preprocess.flag(step, True):
            raise preprocess.fault(step, False, "true")
    scale = preprocess.raw("rescale_factor", _FULL_RANGE)
    if not isinstance(scale, float) or abs(scale - _FULL_RANGE) > 1e-9:
        raise preprocess.fault("rescale_factor", scale, "1/255")
    resample = preprocess.raw("resample")
    interpolation = _INTERPOLATIONS.get(resample) if isinstance(resample, int) else None
    if interpolation is None:
        raise preprocess.fault("resample", resample, f"one of {_INTERPOLATIONS}")
    height, width, resize = _read_sizes(preprocess, crops=crops)
    return ImageSpec(
        height=height,
        width=width,
        mean=preprocess.triple("image_mean"),
        std=preprocess.triple("image_std"),
        interpolation=interpolation,
        resize=resize,
        crop_rounding="down",
        fill=0,
    )


def _read_sizes(preprocess: JsonFields, *, crops: bool) -> tuple[int, int, str]:
    """Return the height and width of the result, and how a picture gets there."""
    crop = (
        _read_edges(preprocess, "crop_size") if preprocess.flag("do_center_crop", crops) else None
    )
    size = preprocess.raw("size")
    if isinstance(size, int) and not crops:
        size = {"height": size, "width": size}
    elif isinstance(size, int):
        size = {"shortest_edge": size}
    if not isinstance(size, dict):
        raise preprocess.fault("size", size, "a whole number or an object")
    edges = preprocess.section("size") if isinstance(preprocess.raw("size"), dict) else None
    if "shortest_edge" in size and crop is not None:
        edge = preprocess.as_count("size", size["shortest_edge"])
        if crop != (edge, edge):
            raise preprocess.fault(
                "crop_size", crop, f"the square that the picture is scaled to, {edge} x {edge}"
            )
        return edge, edge, "shortest"
    if edges is not None and set(size) != {"height", "width"}:
        raise preprocess.fault(
            "size", size, "{'height', 'width'}, or {'shortest_edge'} with a crop"
        )
    height = preprocess.as_count("size", size.get("height"))
    width = preprocess.as_count("size", size.get("width"))
    if crop not in (None, (height, width)):
        raise preprocess.fault("crop_size", crop, f"the size before it, {height} x {width}")
    return height, width, "squash"


def _read_edges(preprocess: JsonFields, name: str) -> tuple[int, int]:
    value = preprocess.raw(name)
    if isinstance(value, dict):
        edges = preprocess.section(name)
        return edges.count("height"), edges.count("width")
    edge = preprocess.as_count(name, value)
    return edge, edge
