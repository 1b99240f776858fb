"""What the JSON files of a model say, the same for both layouts."""

from __future__ import annotations

from dataclasses import dataclass

from imagedex.embedding.clip.image_spec import ImageSpec
from imagedex.embedding.clip.json_fields import JsonFields
from imagedex.embedding.clip.text_spec import Cleaning


@dataclass(frozen=True, slots=True)
class TextConfiguration:
    """What the files say of the text half."""

    context_length: int
    # Whether the text tower is causal and read at the end token, so that it never sees padding.
    is_causal: bool
    is_masked: bool  # Whether a mask that the graph takes has to leave out the padding.
    cleaning: Cleaning


@dataclass(frozen=True, slots=True)
class Configuration:
    """What the files say of the model."""

    dim: int | None  # None where the format leaves it to the graph.
    image: ImageSpec
    text: TextConfiguration
    image_outputs: tuple[str, ...]  # Names of the output with the vectors, best first;
    text_outputs: tuple[str, ...]  # an empty tuple where the graph has only one.


def require_size(fields: JsonFields, name: str, value: int, image: ImageSpec) -> None:
    """Raise ModelError unless the image size of the configuration is that of the preprocessing."""
    if (image.height, image.width) != (value, value):
        raise fields.fault(
            name,
            value,
            f"the size that the model's preprocessing makes, {image.height} x {image.width}; "
            "take both files from one place",
        )
