"""A Hugging Face checkpoint as a model directory in the first layout."""

from __future__ import annotations

import json
import secrets
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagedex.core.errors import Conflict, ModelError
from imagedex.embedding.clip import ClipModel
from imagedex.embedding.clip.json_fields import JsonFields
from imagedex.embedding.clip.transformers_layout import read_image_processor
from imagedex.models.clip_tokenizer import clip_tokenizer
from imagedex.models.disk import copy_file, storage_errors, sync, sync_tree

if TYPE_CHECKING:
    from imagedex.models._torch_export import Checkpoint

# A few words with what tokenizers stumble on; every model has to make something of them.
_SENTENCE = "A photo of a dog, isn't it 12?"


def export_checkpoint(checkpoint: str, output: Path) -> ClipModel:
    """Export a CLIP or SigLIP checkpoint to the directory ``output``, and return that model.

    ``checkpoint`` is a directory or a name on the hub. Each graph is held against torch, the
    tokenizer against its known sequence, and the whole is opened as a model, before the
    directory appears under its name, complete, by one rename. Raises Conflict when ``output`` is
    there, ModelError when the checkpoint cannot be exported or the extra packages are missing,
    and StorageError.
    """
    output = output.absolute()
    if output.exists():
        raise Conflict(f"{str(output)!r} is there already; remove it or name another directory.")
    # Imported here: only an export needs these packages, which are large.
    from imagedex.models._torch_export import open_checkpoint

    opened = open_checkpoint(checkpoint)
    temporary = output.with_name(f".{output.name}.{secrets.token_hex(4)}.exporting")
    try:
        with storage_errors("write", temporary):
            temporary.mkdir(parents=True)
            _write_model(opened, temporary)
        model = ClipModel.open(temporary, name=output.name)
        # Loading proves the tokenizer, and running it both ends of the text half.
        model.load_text_encoder(threads=2).encode_texts([_SENTENCE])
        sync_tree(temporary)
        with storage_errors("write", output):
            temporary.rename(output)
            sync(output.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return ClipModel.open(output, name=output.name)


def _write_model(checkpoint: Checkpoint, directory: Path) -> None:
    from imagedex.models._torch_export import export_image_half, export_text_half

    # What can be wrong with a checkpoint's small files shows before the minutes of an export.
    lowers = _write_tokenizer(checkpoint, directory / "textual")
    _write_json(directory / "visual" / "preprocess_cfg.json", _preprocess(checkpoint))
    image_dim = export_image_half(checkpoint, directory / "visual" / "model.onnx")
    text_dim = export_text_half(checkpoint, directory / "textual" / "model.onnx")
    if image_dim != text_dim:
        raise ModelError(
            f"The checkpoint {checkpoint.source} makes image vectors of {image_dim} and text "
            f"vectors of {text_dim} numbers; they cannot be compared. Take another checkpoint."
        )
    _write_json(directory / "config.json", _config(checkpoint, image_dim, lowers=lowers))


def _config(checkpoint: Checkpoint, dim: int, *, lowers: bool) -> dict[str, Any]:
    """Return what OpenCLIP's configuration says of such a model, as far as it is read."""
    text: dict[str, Any] = {
        "context_length": checkpoint.context_length,
        "vocab_size": checkpoint.vocabulary,
    }
    if checkpoint.kind == "siglip":
        text |= {"no_causal_mask": True, "pool_type": "last"}
        if lowers:
            text["tokenizer_kwargs"] = {"clean": "lower"}
    return {
        "embed_dim": dim,
        "vision_cfg": {"image_size": checkpoint.image_size},
        "text_cfg": text,
    }


def _preprocess(checkpoint: Checkpoint) -> dict[str, Any]:
    source = Path(checkpoint.source) / "preprocessor_config.json"
    spec = read_image_processor(JsonFields(checkpoint.image_processor(), path=source))
    return {
        "size": [spec.height, spec.width],
        "mode": "RGB",
        "mean": spec.mean,
        "std": spec.std,
        "interpolation": spec.interpolation,
        "resize_mode": spec.resize,
        # Not a field of OpenCLIP: transformers begins a crop at another pixel.
        "crop_rounding": spec.crop_rounding,
        "fill_color": spec.fill,
    }


def _write_tokenizer(checkpoint: Checkpoint, folder: Path) -> bool:
    """Write the tokenizer's files; return whether it wants its texts in small letters."""
    whole = checkpoint.file("tokenizer.json")
    vocabulary, merges = checkpoint.file("vocab.json"), checkpoint.file("merges.txt")
    if whole is not None:
        copy_file(whole, folder / "tokenizer.json")
    elif checkpoint.kind == "clip" and vocabulary is not None and merges is not None:
        _write_json(folder / "tokenizer.json", clip_tokenizer(vocabulary, merges))
    else:
        raise ModelError(
            f"The checkpoint {checkpoint.source} has no tokenizer.json (nor, for a CLIP, "
            "vocab.json and merges.txt). Put the tokenizer.json of its model family beside it."
        )
    settings = checkpoint.file("tokenizer_config.json")
    if settings is None:
        return False
    copy_file(settings, folder / "tokenizer_config.json")
    return JsonFields.load(settings).flag("do_lower_case", False)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
