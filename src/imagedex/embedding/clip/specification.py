"""What a model is, read from its files and checked against its graphs."""

from __future__ import annotations

from dataclasses import dataclass

from imagedex.core.errors import ModelError
from imagedex.embedding.clip.configuration import Configuration
from imagedex.embedding.clip.files import ModelFiles
from imagedex.embedding.clip.graph_ports import ImagePorts, TextPorts, image_ports, text_ports
from imagedex.embedding.clip.image_spec import ImageSpec
from imagedex.embedding.clip.immich_layout import read_immich_configuration
from imagedex.embedding.clip.json_fields import JsonFields
from imagedex.embedding.clip.text_spec import TextSpec
from imagedex.embedding.clip.transformers_layout import read_transformers_configuration
from imagedex.embedding.runtimes import describe_graph

_REMEDY = "Take all files from one place, at one revision."


@dataclass(frozen=True, slots=True)
class Specification:
    """All that the loader has to know; nothing in it is guessed."""

    dim: int
    image: ImageSpec
    image_ports: ImagePorts
    text: TextSpec


def read_configuration(files: ModelFiles) -> Configuration:
    """Return what the JSON files of a model say. Raises ModelError."""
    if files.layout == "immich":
        return read_immich_configuration(files)
    return read_transformers_configuration(files)


def read_specification(files: ModelFiles) -> Specification:
    """Return what the model is, from its JSON files and the headers of its graphs.

    Raises ModelError for what is missing, and for what contradicts, naming both sides.
    """
    configuration = read_configuration(files)
    image = image_ports(
        files.image_graph, describe_graph(files.image_graph), configuration.image_outputs
    )
    text = text_ports(
        files.text_graph, describe_graph(files.text_graph), configuration.text_outputs
    )
    _require_size(files, configuration.image, image)
    return Specification(
        dim=_agreed_dim(files, configuration, image, text),
        image=configuration.image,
        image_ports=image,
        text=text_spec(files, configuration, text),
    )


def _require_size(files: ModelFiles, spec: ImageSpec, ports: ImagePorts) -> None:
    for axis, wanted, taken in (
        ("height", spec.height, ports.height),
        ("width", spec.width, ports.width),
    ):
        if taken not in (wanted, None):
            raise ModelError(
                f"{str(files.image_preprocess)!r} makes pictures of {axis} {wanted}, but the graph "
                f"{str(files.image_graph)!r} takes {taken}. {_REMEDY}"
            )


def _agreed_dim(
    files: ModelFiles, configuration: Configuration, image: ImagePorts, text: TextPorts
) -> int:
    """Return the length of the vectors, on which all that state one must agree."""
    stated = {
        str(files.config): configuration.dim,
        str(files.image_graph): image.dim,
        str(files.text_graph): text.dim,
    }
    known = {source: dim for source, dim in stated.items() if dim is not None}
    if not known:
        raise ModelError(
            f"Neither {str(files.config)!r} nor a graph says how long the vectors of the model in "
            f"{str(files.directory)!r} are. Export the model anew."
        )
    if len(set(known.values())) > 1:
        said = ", ".join(f"{dim} by {source!r}" for source, dim in known.items())
        raise ModelError(f"The length of the model's vectors is said to be {said}. {_REMEDY}")
    return next(iter(known.values()))


def text_spec(files: ModelFiles, configuration: Configuration, ports: TextPorts) -> TextSpec:
    """Return how texts become the input of a text graph with these ports. Raises ModelError."""
    text = configuration.text
    if ports.length not in (text.context_length, None):
        raise ModelError(
            f"{str(files.config)!r} gives texts {text.context_length} tokens, but the graph "
            f"{str(files.text_graph)!r} takes {ports.length}. {_REMEDY}"
        )
    # A graph with a mask is told which tokens are padding, whatever its tower is like; the
    # configuration beside it can be that of another text tower (M-CLIP's is CLIP's).
    is_masked = ports.mask is not None and text.is_masked
    is_cut_off = text.is_causal and not is_masked
    is_unseen = is_cut_off or is_masked
    pad_token, padding_side = _read_padding(files)
    if pad_token is None and not is_cut_off:
        raise ModelError(
            f"No file of the model in {str(files.directory)!r} names the token that short texts "
            "are padded with (pad_token in tokenizer_config.json), on which its vectors depend. "
            "Take tokenizer_config.json from where the graphs come from."
        )
    return TextSpec(
        context_length=text.context_length,
        padded_length=None if is_unseen and ports.length is None else text.context_length,
        is_masked=is_masked,
        # Where the tower is read at its end token, a pad token with a larger id would be taken
        # for it.
        pad_token=None if is_cut_off else pad_token,
        # On the left, padding would move a causal text to other positions.
        padding_side="left" if padding_side == "left" and not is_unseen else "right",
        cleaning=text.cleaning,
        ids_input=ports.ids,
        ids_dtype=ports.dtype,
        mask_input=ports.mask,
        batch=ports.batch,
        output=ports.output,
        ends_matter=is_cut_off,
    )


def _read_padding(files: ModelFiles) -> tuple[str | None, str]:
    """Return the token that a tokenizer pads with, and on which side; right is the default."""
    if files.tokenizer_config is None:
        return None, "right"
    config = JsonFields.load(files.tokenizer_config)
    side = config.text("padding_side", "right")
    if side not in ("left", "right"):
        raise config.fault("padding_side", side, "left or right")
    if "pad_token" not in config:
        return None, side
    # A token is written as its text or as an object with its properties.
    token = config.raw("pad_token")
    if isinstance(token, dict):
        return config.section("pad_token").text("content"), side
    return config.text("pad_token"), side
