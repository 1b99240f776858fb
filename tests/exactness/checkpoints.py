"""A tiny CLIP and a tiny SigLIP with random weights, as transformers saves them."""

from __future__ import annotations

import functools
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
)

from support.tokenizers import gemma_tokenizer, vocabulary_size, whole_clip_tokenizer

IMAGE_SIZE = 48
_SEED = 7
_TOWER = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
_PATCHES = {"image_size": IMAGE_SIZE, "patch_size": 16}


@functools.cache
def open_clip_folder() -> Path:
    """Where OpenCLIP is installed; it is not imported, as that needs torchvision."""
    spec = find_spec("open_clip")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0])


def write_clip(directory: Path, *, end: int = 49_407) -> Path:
    """Write a CLIPModel with CLIP's whole vocabulary; ``end`` is what its config calls the end."""
    torch.manual_seed(_SEED)
    text = {**_TOWER, "vocab_size": 49_408, "eos_token_id": end, "bos_token_id": 49_406}
    config = CLIPConfig(text_config=text, vision_config={**_TOWER, **_PATCHES}, projection_dim=32)
    _save(CLIPModel(config), directory)
    CLIPImageProcessorPil(
        size={"shortest_edge": IMAGE_SIZE}, crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    ).save_pretrained(directory)
    write_clip_tokenizer(directory)
    return directory


def write_clip_tokenizer(directory: Path) -> None:
    """Write CLIP's tokenizer with its whole vocabulary."""
    tokenizer = whole_clip_tokenizer(open_clip_folder() / "bpe_simple_vocab_16e6.txt.gz")
    _write_tokenizer(
        directory,
        tokenizer,
        {
            "bos_token": "<|startoftext|>",
            "eos_token": "<|endoftext|>",
            "pad_token": "<|endoftext|>",
            "unk_token": "<|endoftext|>",
            "model_max_length": 77,
            "tokenizer_class": "CLIPTokenizer",
        },
    )


def write_siglip(directory: Path) -> Path:
    """Write a SiglipModel with a tokenizer of SigLIP 2's kind."""
    torch.manual_seed(_SEED)
    tokenizer = gemma_tokenizer()
    text = {
        **_TOWER,
        "vocab_size": vocabulary_size(tokenizer),
        "max_position_embeddings": 64,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": 2,
    }
    config = SiglipConfig(text_config=text, vision_config={**_TOWER, **_PATCHES})
    _save(SiglipModel(config), directory)
    SiglipImageProcessorPil(size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}).save_pretrained(
        directory
    )
    _write_tokenizer(
        directory,
        tokenizer,
        {
            "pad_token": "<pad>",
            "eos_token": "<eos>",
            "bos_token": "<bos>",
            "unk_token": "<unk>",
            "do_lower_case": True,
            "model_max_length": 64,
            "padding_side": "right",
            "tokenizer_class": "PreTrainedTokenizerFast",
        },
    )
    return directory


def _save(model: Any, directory: Path) -> None:
    # The initial weights are so small that all inputs would get nearly the same vector.
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.randn_like(parameter) * parameter.shape[-1] ** -0.5)
    model.eval().save_pretrained(directory)


def _write_tokenizer(directory: Path, content: Any, settings: dict[str, Any]) -> None:
    (directory / "tokenizer.json").write_text(json.dumps(content), "utf-8")
    (directory / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
