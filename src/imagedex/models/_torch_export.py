"""The one place that talks to torch and transformers, which only an export needs."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray

from imagedex.core.errors import ModelError
from imagedex.embedding.runtimes import Part, Runtime, load_graph

try:
    import torch
    import transformers
    from transformers.utils import cached_file
except ImportError as error:
    raise ModelError(
        f"Exporting a checkpoint needs torch and transformers, and {error.name!r} is not "
        "installed; run: pip install 'imagedex[export]'"
    ) from error

_OPSET: Final = 18
# A protobuf message ends at 2 GiB; with room for the graph itself.
_MOST_INLINE_BYTES: Final = 1_900_000_000
_LEAST_COSINE: Final = 0.99999
_SEED: Final = 5
# The exporter names values after torch's operators, so that an output called "embedding" would
# be one of two values of that name in the same graph; the file would be invalid.
_RESULT: Final = "imagedex_result"
_OUTPUT: Final = "embedding"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A CLIP or SigLIP in transformers, and where its other files come from."""

    source: str  # A directory, or a name on the hub.
    model: Any  # CLIPModel or SiglipModel, in float32, for inference.
    kind: str  # "clip" or "siglip".

    @property
    def context_length(self) -> int:
        """Most tokens of a text."""
        return int(self.model.config.text_config.max_position_embeddings)

    @property
    def vocabulary(self) -> int:
        """Number of tokens."""
        return int(self.model.config.text_config.vocab_size)

    @property
    def image_size(self) -> int:
        """Edge of the pictures that it takes."""
        return int(self.model.config.vision_config.image_size)

    def file(self, name: str) -> Path | None:
        """Return a file of the checkpoint, from the hub where it is there, or None."""
        found = cached_file(
            self.source,
            name,
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
        return None if found is None else Path(found)

    def image_processor(self) -> dict[str, Any]:
        """Return what its image processor does, as transformers writes it down."""
        with _quiet(), _checkpoint_errors(self.source):
            processor = transformers.AutoImageProcessor.from_pretrained(self.source)
        fields: dict[str, Any] = json.loads(processor.to_json_string())
        return fields


def open_checkpoint(source: str) -> Checkpoint:
    """Load a checkpoint by its directory or its name on the hub. Raises ModelError."""
    with _quiet(), _checkpoint_errors(source):
        config = transformers.AutoConfig.from_pretrained(source)
        classes = {"clip": transformers.CLIPModel, "siglip": transformers.SiglipModel}
        if config.model_type not in classes:
            raise ModelError(
                f"The checkpoint {source} is of type {config.model_type!r}; Imagedex exports "
                f"{' and '.join(sorted(classes))}. Take another checkpoint, or one that is "
                "published as ONNX already."
            )
        model = classes[config.model_type].from_pretrained(source, dtype=torch.float32)
    return Checkpoint(source, model.eval(), config.model_type)


def export_image_half(checkpoint: Checkpoint, path: Path) -> int:
    """Write the image graph, hold it against torch, and return the length of its vectors.

    It takes ``image``, float32 of shape (batch, 3, size, size), and gives ``embedding``, unit
    vectors. Raises ModelError.
    """
    size = checkpoint.image_size
    batch = torch.export.Dim("batch", min=1)
    half = _ImageHalf(checkpoint)
    pictures = _random_pictures(2, size)
    _export(half, torch.from_numpy(pictures), path, "image", {0: batch})
    return max(
        _require_same(half, path, "image", _random_pictures(count, size)) for count in (1, 3)
    )


def export_text_half(checkpoint: Checkpoint, path: Path) -> int:
    """Write the text graph, hold it against torch, and return the length of its vectors.

    It takes ``text``, int64 of shape (batch, length), and gives ``embedding``, unit vectors. The
    length is free for CLIP and that of SigLIP's training for SigLIP, which attends to padding.
    Raises ModelError.
    """
    longest = checkpoint.context_length
    axes = {0: torch.export.Dim("batch", min=1)}
    lengths: tuple[int, ...] = (longest,)
    if checkpoint.kind == "clip":
        axes[1] = torch.export.Dim("length", min=2, max=longest)
        lengths = (2, longest // 2, longest)
    half = _TextHalf(checkpoint)
    example = _random_ids(checkpoint, 2, lengths[len(lengths) // 2])
    _export(half, torch.from_numpy(example), path, "text", axes)
    return max(
        _require_same(half, path, "text", _random_ids(checkpoint, count, length))
        for length in lengths
        for count in (1, 3)
    )


class _ImageHalf(torch.nn.Module):  # type: ignore[misc] # torch may not be there to be checked.
    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        self.tower = checkpoint.model.vision_model
        self.projection = getattr(checkpoint.model, "visual_projection", torch.nn.Identity())

    def forward(self, image: Any) -> Any:
        pooled = self.tower(pixel_values=image).pooler_output
        return torch.nn.functional.normalize(self.projection(pooled), dim=-1)


class _TextHalf(torch.nn.Module):  # type: ignore[misc]
    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        self.tower = checkpoint.model.text_model
        self.projection = getattr(checkpoint.model, "text_projection", torch.nn.Identity())

    def forward(self, text: Any) -> Any:
        pooled = self.tower(input_ids=text).pooler_output
        return torch.nn.functional.normalize(self.projection(pooled), dim=-1)


def _export(half: Any, example: Any, path: Path, name: Part, axes: dict[int, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    weight_bytes = sum(each.numel() * each.element_size() for each in half.parameters())
    is_external = weight_bytes > _MOST_INLINE_BYTES
    try:
        with _quiet():
            torch.onnx.export(
                half,
                (example,),
                str(path),
                input_names=[name],
                output_names=[_RESULT],
                dynamic_shapes={name: axes},
                opset_version=_OPSET,
                dynamo=True,
                external_data=is_external,
                verbose=False,
            )
    except Exception as error:  # The exporter raises whatever its many passes do.
        raise ModelError(
            f"torch {torch.__version__} could not export the {name} half of the checkpoint: "
            f"{str(error).strip()[:400]}. Install the versions of torch and transformers that "
            "this release of Imagedex was tested with, as docs/models.md says."
        ) from error
    _name_output(path)


def _name_output(path: Path) -> None:
    """Give the output its name, and whatever else has that name another one."""
    model = onnx.load(path, load_external_data=False)
    names = {_OUTPUT: f"{_OUTPUT}_inside", _RESULT: _OUTPUT}
    for node in model.graph.node:
        for values in (node.input, node.output):
            for index, value in enumerate(values):
                values[index] = names.get(value, value)
    graph = model.graph
    for each in (*graph.initializer, *graph.output, *graph.value_info):
        each.name = names.get(each.name, each.name)
    onnx.save(model, path)


def _require_same(half: Any, path: Path, name: Part, values: NDArray[Any]) -> int:
    """Raise ModelError unless the graph gives torch's vectors; return their length."""
    with torch.inference_mode():
        expected = half(torch.from_numpy(values)).numpy().astype(np.float64)
    runner = load_graph(path, threads=2, runtime=Runtime.ONNXRUNTIME, output=_OUTPUT)
    found = runner.run({name: values}).astype(np.float64)
    cosine = float((expected * found).sum(axis=1).min()) if expected.shape == found.shape else 0.0
    if not cosine >= _LEAST_COSINE:
        raise ModelError(
            f"The exported {name} graph gives other vectors than the checkpoint for an input of "
            f"shape {values.shape}: cosine {cosine:.6f}, at least {_LEAST_COSINE} was expected. "
            f"Report it, with the checkpoint's name and torch {torch.__version__}."
        )
    return int(expected.shape[1])


def _random_pictures(count: int, size: int) -> NDArray[np.float32]:
    random = np.random.default_rng(_SEED + count)
    return random.standard_normal((count, 3, size, size), dtype=np.float32)


def _random_ids(checkpoint: Checkpoint, count: int, length: int) -> NDArray[np.int64]:
    random = np.random.default_rng(_SEED + count + length)
    ids = random.integers(1, checkpoint.vocabulary - 1, (count, length))
    # CLIP reads the vector at the end token: the largest id, or the one that the config names.
    end = int(checkpoint.model.config.text_config.eos_token_id or 0)
    ids[ids == end] = 1 if end != 1 else 0
    ids[:, -1] = end if end > 2 else checkpoint.vocabulary - 1
    return ids


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what torch and transformers say of their own insides out of the output."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "transformers")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _checkpoint_errors(source: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(
            f"The checkpoint {source} cannot be loaded: {str(error).strip()[:400]}. Give a "
            "directory with config.json and model.safetensors, or the name of a repository on "
            "the hub as OWNER/NAME."
        ) from error
