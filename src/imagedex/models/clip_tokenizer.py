"""CLIP's tokenizer as a tokenizer.json, made of the two files that older checkpoints have.

The rules are those of OpenAI's ``simple_tokenizer.py``
(https://github.com/openai/CLIP/blob/main/clip/simple_tokenizer.py) as the tokenizers library
says them. transformers 5 cannot be asked for it: from ``vocab.json`` and ``merges.txt`` it makes,
without a warning, a tokenizer that leaves out the merges.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from imagedex.core.errors import ModelError
from imagedex.embedding.clip.small_files import read_small_file

_START = "<|startoftext|>"
_END = "<|endoftext|>"
_WORDS = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)


def clip_tokenizer(vocabulary: Path, merges: Path) -> dict[str, Any]:
    """Return the content of a tokenizer.json. Raises ModelError when the files are not CLIP's."""
    try:
        ids: dict[str, int] = json.loads(read_small_file(vocabulary))
        lines = read_small_file(merges).decode().splitlines()
        start, end = ids[_START], ids[_END]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{vocabulary} and {merges} are not the vocabulary of a CLIP: {error!r}. Take a "
            "checkpoint that has a tokenizer.json."
        ) from error
    pairs = [line for line in lines if line and not line.startswith("#version")]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_special(_START, start), _special(_END, end)],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "NFC"},
                {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
                {"type": "Lowercase"},
            ],
        },
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {
                    "type": "Split",
                    "pattern": {"Regex": _WORDS},
                    "behavior": "Removed",
                    "invert": True,
                },
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True},
            ],
        },
        "post_processor": {
            "type": "RobertaProcessing",
            "sep": [_END, end],
            "cls": [_START, start],
            "trim_offsets": False,
            "add_prefix_space": False,
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": _END,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "</w>",
            "fuse_unk": False,
            "vocab": ids,
            "merges": pairs,
        },
    }


def _special(content: str, number: int) -> dict[str, Any]:
    return {
        "id": number,
        "content": content,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }
