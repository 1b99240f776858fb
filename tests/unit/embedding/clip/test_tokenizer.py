from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from imagedex.core.errors import ModelError
from imagedex.embedding.clip.text_spec import Cleaning, TextSpec
from imagedex.embedding.clip.tokenizer import ClipTokenizer
from imagedex.embedding.texts import MAX_CHARACTERS
from support.tokenizers import (
    CLIP_IDS,
    CLIP_SENTENCE,
    clip_tokenizer,
    gemma_tokenizer,
    write_json,
)

CLIP = TextSpec(
    context_length=77,
    padded_length=None,
    is_masked=False,
    pad_token="<|endoftext|>",
    padding_side="right",
    cleaning=Cleaning.NONE,
    ids_input="text",
    ids_dtype="int32",
    mask_input=None,
    batch=None,
    output="embedding",
    ends_matter=True,
)
SIGLIP = replace(CLIP, context_length=64, padded_length=64, pad_token="<pad>", ends_matter=False)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokenizer.json"


def make(path: Path, content: dict[str, Any], spec: TextSpec = CLIP) -> ClipTokenizer:
    write_json(path, content)
    return ClipTokenizer(path, spec)


def test_a_right_clip_tokenizer_gives_the_published_sequence(path: Path) -> None:
    (text,) = make(path, clip_tokenizer(real_ids=True)).encode([CLIP_SENTENCE])
    assert text.ids == CLIP_IDS
    assert not text.is_cut


@pytest.mark.parametrize("part", ["normalizer", "pre_tokenizer", "post_processor"])
def test_a_clip_tokenizer_that_lacks_a_step_is_refused(path: Path, part: str) -> None:
    with pytest.raises(ModelError, match=r"does not work: .*should give \[49406, 320, 1125"):
        make(path, {**clip_tokenizer(real_ids=True), part: None})


def test_a_clip_tokenizer_without_merges_is_refused(path: Path) -> None:
    broken = clip_tokenizer(real_ids=True)
    broken["model"]["merges"] = []
    with pytest.raises(ModelError, match="transformers 5 writes such files"):
        make(path, broken)


def test_a_tokenizer_without_end_token_is_refused_where_the_model_reads_there(path: Path) -> None:
    with pytest.raises(ModelError, match="start and an end token"):
        make(path, {**clip_tokenizer(), "post_processor": None})


@pytest.mark.parametrize("content", ["", "{}", "no JSON", '{"model": {"type": "Other"}}'])
def test_a_tokenizer_that_cannot_be_parsed_is_named(path: Path, content: str) -> None:
    path.write_text(content)
    with pytest.raises(ModelError, match=r"tokenizer\.json' cannot be read.*pull"):
        ClipTokenizer(path, CLIP)


@pytest.mark.parametrize(
    "change",
    [
        # It has no token for what its vocabulary lacks, which is an exception.
        {"model": {"type": "Unigram", "unk_id": None, "vocab": [["dog", 0.0], ["<pad>", 0.0]]}},
        # It appends a token that it does not have, which is a panic.
        {
            "model": {"type": "BPE", "vocab": {"<pad>": 0}, "merges": []},
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "[END]", "type_id": 0}}],
                "pair": [],
                "special_tokens": {},
            },
        },
    ],
)
def test_a_tokenizer_that_fails_on_texts_is_refused_before_a_query_has_them(
    path: Path, change: dict[str, Any]
) -> None:
    with pytest.raises(ModelError, match=r"tokenizer\.json' fails on a text in tokenizers"):
        make(path, {"version": "1.0", **change}, SIGLIP)


def test_a_context_without_room_for_a_word_is_refused(path: Path) -> None:
    with pytest.raises(ModelError, match=r"give texts 2 tokens, of which .* needs 2"):
        make(path, clip_tokenizer(), replace(CLIP, context_length=2))


def test_a_pad_token_that_the_vocabulary_lacks_is_named(path: Path) -> None:
    with pytest.raises(ModelError, match="pads with '<blank>'"):
        make(path, clip_tokenizer(), replace(CLIP, pad_token="<blank>"))


def test_a_long_text_is_cut_at_the_context_length_and_keeps_its_end(path: Path) -> None:
    tokenizer = make(path, clip_tokenizer())
    fits, long = tokenizer.encode(["dog " * 75, "dog " * 76])
    assert len(fits.ids) == 77
    assert not fits.is_cut
    assert long.is_cut
    assert long.ids == fits.ids


def test_sections_for_padding_and_cutting_in_the_file_do_not_count(path: Path) -> None:
    published = gemma_tokenizer()
    assert published["padding"]
    assert published["truncation"]
    short, long = make(path, published, SIGLIP).encode(["dog", "dog " * 100])
    assert len(short.ids) == 2
    assert len(long.ids) == 64
    assert long.ids[-1] == short.ids[-1] == 1


def test_a_megabyte_of_text_is_cut_before_it_is_read(path: Path) -> None:
    tokenizer = make(path, clip_tokenizer())
    (blank,) = tokenizer.encode([" " * (MAX_CHARACTERS + 1)])
    assert blank.is_cut
    assert len(blank.ids) == 2


def test_half_a_surrogate_pair_is_a_text_too(path: Path) -> None:
    tokenizer = make(path, clip_tokenizer())
    half, question = tokenizer.encode(["dog \ud83d", "dog ?"])
    assert half.ids == question.ids


@pytest.mark.parametrize(
    ("cleaning", "text", "alike"),
    [
        (Cleaning.CANONICAL, "A  dog, isn't_it?", "a dog isnt it"),
        (Cleaning.CANONICAL, "dog - cat", "dog cat"),
        (Cleaning.LOWER, "A DOG!", "a dog!"),
        (Cleaning.WHITESPACE, " a \n dog ", "a dog"),
    ],
)
def test_a_text_is_cleaned_as_its_model_was_trained(
    path: Path, cleaning: Cleaning, text: str, alike: str
) -> None:
    cleaned = make(path, gemma_tokenizer(), replace(SIGLIP, cleaning=cleaning))
    as_is = make(path, gemma_tokenizer(), replace(SIGLIP, cleaning=Cleaning.NONE))
    assert cleaned.encode([text]) == as_is.encode([alike])
    assert as_is.encode([text]) != as_is.encode([alike])


def test_letters_are_made_small_once(path: Path) -> None:
    twice = make(path, clip_tokenizer(), replace(CLIP, cleaning=Cleaning.LOWER))
    once = make(path, clip_tokenizer())
    assert twice.encode(["ΟΔΟΣ İ"]) == once.encode(["ΟΔΟΣ İ"])


def test_padding_that_nothing_sees_needs_no_token(path: Path) -> None:
    assert make(path, clip_tokenizer(), replace(CLIP, pad_token=None)).pad_id == 524
