"""CLIP's whole vocabulary gives the ids of OpenCLIP's own tokenizer."""

from __future__ import annotations

import html
import importlib.util
import json
import random
from pathlib import Path
from typing import Any

import ftfy
from tokenizers import Tokenizer

from exactness.checkpoints import open_clip_folder
from imagedex.models.clip_tokenizer import clip_tokenizer
from support.tokenizers import CLIP_IDS, CLIP_SENTENCE, whole_clip_tokenizer

PIECES = (
    "a the photo of dog dogs playing park it's don't we'll they've I'd you're isn't 12 1,000 3.14 "
    "2024-11-22 C++ e-mail user@example.org #tag 50% $5 (brackets) [square] x=y; wow!!! ... --- "
    "Ünïcödé naïve façade São Straße ŒUVRE ΑΒΓ αβγ привет МИР 猫 犬が好き 你好世界 한국어 "
    "مرحبا שלום हिन्दी ไทย \N{DOG FACE} \N{GRINNING FACE}\N{GRINNING FACE} "
    "\N{MAN}\N{ZERO WIDTH JOINER}\N{WOMAN}\N{ZERO WIDTH JOINER}\N{GIRL} "
    "\N{REGIONAL INDICATOR SYMBOL LETTER D}\N{REGIONAL INDICATOR SYMBOL LETTER E} ½ ² € £ § ∑ ≠"
).split()
SPACES = (" ", "  ", "\t", "\n", " \n ", "")
COUNT = 600


def whole_tokenizer() -> Tokenizer:
    vocabulary = open_clip_folder() / "bpe_simple_vocab_16e6.txt.gz"
    return Tokenizer.from_str(json.dumps(whole_clip_tokenizer(vocabulary)))


def open_clip_tokenizer() -> Any:
    """OpenCLIP's tokenizer; by its file, since the package imports torchvision."""
    spec = importlib.util.spec_from_file_location(
        "open_clip_tokenizer", open_clip_folder() / "tokenizer.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.SimpleTokenizer()


def drawn_texts() -> list[str]:
    """Texts of pieces and spaces that OpenCLIP would not repair before it looks at them."""
    draw = random.Random(20)
    texts = [
        "".join(draw.choice(PIECES) + draw.choice(SPACES) for _ in range(draw.randint(1, 12)))
        for _ in range(COUNT)
    ]
    return [text for text in texts if ftfy.fix_text(html.unescape(text)) == text]


def test_the_known_sentence_has_its_known_ids() -> None:
    assert tuple(whole_tokenizer().encode(CLIP_SENTENCE).ids) == CLIP_IDS


def test_several_hundred_texts_have_the_ids_of_open_clip() -> None:
    ours, theirs = whole_tokenizer(), open_clip_tokenizer()
    texts = drawn_texts()
    assert len(texts) > COUNT // 2
    for text in texts:
        assert ours.encode(text, add_special_tokens=False).ids == theirs.encode(text), repr(text)


def test_vocabulary_and_merges_make_the_same_tokenizer(tmp_path: Path) -> None:
    whole = whole_clip_tokenizer(open_clip_folder() / "bpe_simple_vocab_16e6.txt.gz")["model"]
    vocabulary, merges = tmp_path / "vocab.json", tmp_path / "merges.txt"
    vocabulary.write_text(json.dumps(whole["vocab"]), "utf-8")
    merges.write_text("\n".join(["#version: 0.2", *whole["merges"], ""]), "utf-8")
    made = Tokenizer.from_str(json.dumps(clip_tokenizer(vocabulary, merges)))
    assert tuple(made.encode(CLIP_SENTENCE).ids) == CLIP_IDS
    expected = whole_tokenizer()
    for text in drawn_texts()[:100]:
        assert made.encode(text).ids == expected.encode(text).ids
