"""Small tokenizer.json files, built as the published ones are.

CLIP's whole vocabulary has 49,408 entries; these have its alphabet and the few merges of one
sentence. With ``real_ids`` they keep the ids of the whole vocabulary, so that the sentence must
give the published sequence.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

CLIP_SENTENCE = "A photo of a dog, isn't it 12?"
CLIP_IDS = (49406, 320, 1125, 539, 320, 1929, 267, 2923, 713, 585, 272, 273, 286, 49407)

# The merges that the sentence needs, with the ids of what they make in the whole vocabulary.
_SENTENCE_MERGES = {
    ("t", "o</w>"): 531,
    ("o", "f</w>"): 539,
    ("i", "t</w>"): 585,
    ("i", "s"): 595,
    ("h", "o"): 606,
    ("d", "o"): 639,
    ("'", "t</w>"): 713,
    ("p", "ho"): 816,
    ("pho", "to</w>"): 1125,
    ("do", "g</w>"): 1929,
    ("is", "n</w>"): 2923,
}
_START = "<|startoftext|>"
_END = "<|endoftext|>"
_WORDS = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)
# The byte alphabet is 256 letters, and the same again at the end of a word.
_ALPHABET = 512
_WHOLE = 49_408


def clip_tokenizer(*, real_ids: bool = False) -> dict[str, Any]:
    """Return a tokenizer.json of CLIP's kind with few merges; 525 entries unless ``real_ids``."""
    made = list(_SENTENCE_MERGES)
    ids = (
        list(_SENTENCE_MERGES.values())
        if real_ids
        else list(range(_ALPHABET, _ALPHABET + len(made)))
    )
    end = _WHOLE - 1 if real_ids else _ALPHABET + len(made) + 1
    return _clip_tokenizer(dict(zip(made, ids, strict=True)), end=end)


def whole_clip_tokenizer(vocabulary: Path) -> dict[str, Any]:
    """Return CLIP's tokenizer.json from OpenCLIP's ``bpe_simple_vocab_16e6.txt.gz``."""
    lines = gzip.decompress(vocabulary.read_bytes()).decode().split("\n")
    # The first line is a heading, and the file goes on after the merges that CLIP took.
    pairs = [line.split() for line in lines[1 : _WHOLE - _ALPHABET - 2 + 1]]
    merges = {(left, right): _ALPHABET + rank for rank, (left, right) in enumerate(pairs)}
    return _clip_tokenizer(merges, end=_WHOLE - 1)


def _clip_tokenizer(merges: Mapping[tuple[str, str], int], *, end: int) -> dict[str, Any]:
    letters = _byte_letters()
    pieces = [*letters, *(f"{letter}</w>" for letter in letters)]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    vocabulary |= {left + right: number for (left, right), number in merges.items()}
    vocabulary |= {_START: end - 1, _END: end}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_special(_START, end - 1), _special(_END, end)],
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
            "cls": [_START, end - 1],
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
            "vocab": vocabulary,
            "merges": [f"{left} {right}" for left, right in merges],
        },
    }


def gemma_tokenizer() -> dict[str, Any]:
    """Return a tokenizer.json of Gemma's kind, as SigLIP 2 has it: bytes stand for the rest."""
    specials = ["<pad>", "<eos>", "<bos>", "<unk>"]
    pieces = [*specials, *(f"<0x{byte:02X}>" for byte in range(256)), "▁"]
    pieces += [chr(code) for code in range(ord("!"), ord("~") + 1)]
    merges = [("d", "o"), ("do", "g"), ("c", "a"), ("ca", "t")]
    pieces += [left + right for left, right in merges]
    return {
        "version": "1.0",
        # Published files carry a padding section, which is not the one that the model wants.
        "truncation": {
            "direction": "Right",
            "max_length": 9,
            "strategy": "LongestFirst",
            "stride": 0,
        },
        "padding": {
            "strategy": {"Fixed": 11},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "<pad>",
        },
        "added_tokens": [_special(token, number) for number, token in enumerate(specials)],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "pre_tokenizer": None,
        "post_processor": _end_template("<eos>", 1),
        "decoder": None,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": {piece: number for number, piece in enumerate(pieces)},
            "merges": [f"{left} {right}" for left, right in merges],
        },
    }


def vocabulary_size(tokenizer: Mapping[str, Any]) -> int:
    """Return how many rows an embedding table needs for the ids of this tokenizer."""
    return int(max(tokenizer["model"]["vocab"].values())) + 1


def write_json(path: Path, content: object) -> None:
    """Write ``content`` as JSON, making its folder where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def _byte_letters() -> Sequence[str]:
    """Return the letters that stand for bytes, in the order of CLIP's vocabulary."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1)]
    plain += range(ord("®"), ord("ÿ") + 1)
    return [*map(chr, plain), *(chr(256 + number) for number in range(256 - len(plain)))]


def _special(token: str, number: int) -> dict[str, Any]:
    return {
        "id": number,
        "content": token,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }


def _end_template(token: str, number: int) -> dict[str, Any]:
    text = {"Sequence": {"id": "A", "type_id": 0}}
    end = {"SpecialToken": {"id": token, "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [text, end],
        "pair": [text, end, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {token: {"id": token, "ids": [number], "tokens": [token]}},
    }
