"""The configuration of the first layout: Immich's exports of OpenCLIP models.

``config.json`` is OpenCLIP's model configuration and ``visual/preprocess_cfg.json`` its
preprocessing. Where a field is left out, OpenCLIP's own default holds, since its files are the
differences from ``CLIPTextCfg`` and ``PreprocessCfg``:
https://github.com/mlfoundations/open_clip/blob/main/src/open_clip/model.py,
https://github.com/mlfoundations/open_clip/blob/main/src/open_clip/transform.py.
"""

from __future__ import annotations

from imagedex.embedding.clip.configuration import (
    Configuration,
    TextConfiguration,
    require_size,
)
from imagedex.embedding.clip.files import ModelFiles
from imagedex.embedding.clip.image_spec import ImageSpec
from imagedex.embedding.clip.json_fields import JsonFields
from imagedex.embedding.clip.text_spec import Cleaning

_CONTEXT_LENGTH = 77
# OpenCLIP's repair of broken encodings and HTML entities, which is part of each of them, is left
# out, as transformers does.
_CLEANINGS = {
    "lower": Cleaning.LOWER,
    "whitespace": Cleaning.WHITESPACE,
    "canonicalize": Cleaning.CANONICAL,
}
# Read at the end token: by its id, which is the largest, or by looking for it.
_END_POOLINGS = ("argmax", "eos")


def read_immich_configuration(files: ModelFiles) -> Configuration:
    """Return what the files of a model in the first layout say. Raises ModelError."""
    config = JsonFields.load(files.config)
    image = _read_image(JsonFields.load(files.image_preprocess))
    vision = config.section("vision_cfg")
    if isinstance(size := vision.raw("image_size"), int):
        require_size(vision, "image_size", size, image)
    return Configuration(
        dim=config.count("embed_dim"),
        image=image,
        text=_read_text(config.section("text_cfg")),
        image_outputs=("embedding",),
        text_outputs=("embedding",),
    )


def _read_text(text: JsonFields) -> TextConfiguration:
    pooling = text.text("pool_type", "argmax")
    # The towers of other libraries look left and right, and find padding out by themselves.
    is_foreign = "hf_model_name" in text
    sees_ahead = text.flag("no_causal_mask", False) or text.flag("embed_cls", False)
    return TextConfiguration(
        context_length=text.count("context_length", _CONTEXT_LENGTH),
        is_causal=pooling in _END_POOLINGS and not is_foreign and not sees_ahead,
        is_masked=True,
        cleaning=_read_cleaning(text),
    )


def _read_cleaning(text: JsonFields) -> Cleaning:
    options = text.section("tokenizer_kwargs")
    if "clean" not in options:
        # CLIP's own tokenizer.json does all that it needs.
        return Cleaning.WHITESPACE if "hf_tokenizer_name" in text else Cleaning.NONE
    clean = options.text("clean")
    if clean not in _CLEANINGS:
        raise options.fault("clean", clean, f"one of {list(_CLEANINGS)}")
    return _CLEANINGS[clean]


def _read_image(preprocess: JsonFields) -> ImageSpec:
    if (mode := preprocess.text("mode", "RGB")) != "RGB":
        raise preprocess.fault("mode", mode, "'RGB'")
    height, width = _read_size(preprocess)
    fill = preprocess.raw("fill_color", 0)
    return ImageSpec(
        height=height,
        width=width,
        mean=preprocess.triple("mean"),
        std=preprocess.triple("std"),
        interpolation=preprocess.text("interpolation"),
        resize=preprocess.text("resize_mode", "shortest"),
        # Not a field of OpenCLIP, which rounds: our own exports of transformers checkpoints say
        # by it that their pictures were cropped the other way.
        crop_rounding=preprocess.text("crop_rounding", "nearest"),
        fill=_read_colour(preprocess, fill),
    )


def _read_size(preprocess: JsonFields) -> tuple[int, int]:
    size = preprocess.raw("size")
    if isinstance(size, list) and len(size) == 2:
        return preprocess.as_count("size", size[0]), preprocess.as_count("size", size[1])
    edge = preprocess.as_count("size", size)
    return edge, edge


def _read_colour(preprocess: JsonFields, value: object) -> int | tuple[int, int, int]:
    if isinstance(value, list) and len(value) == 3 and all(type(each) is int for each in value):
        return (value[0], value[1], value[2])
    if type(value) is int:
        return value
    raise preprocess.fault("fill_color", value, "a whole number, or three")
