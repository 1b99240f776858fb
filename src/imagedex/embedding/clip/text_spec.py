"""How a text becomes the input of a text graph."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal


class Cleaning(StrEnum):
    """What is done to a text before its tokenizer sees it."""

    NONE = "none"
    WHITESPACE = "whitespace"  # Each run of white space becomes one space.
    LOWER = "lower"  # Made lower case, unless the tokenizer does so itself.
    CANONICAL = "canonical"  # Lower case without punctuation, as SigLIP was trained.


@dataclass(frozen=True, slots=True)
class TextSpec:
    """What a text graph wants; all of it read from the model's files."""

    context_length: int  # Most tokens of a text, its start and end tokens among them.
    # Tokens that every text is padded to; None for as many as the longest of its batch has. The
    # shorter form is right where no token sees the padding: in CLIP's causal text tower, which is
    # read at the end token, and where the graph takes a mask.
    padded_length: int | None
    is_masked: bool  # Whether the mask, where the graph takes one, leaves out the padding.
    pad_token: str | None  # None for the token that ends a text, where what follows it is not seen.
    padding_side: Literal["left", "right"]
    cleaning: Cleaning
    ids_input: str  # The graph's input for token ids, int32 or int64,
    ids_dtype: Literal["int32", "int64"]
    mask_input: str | None  # and for the mask, of the same type as the ids.
    batch: int | None  # How many texts the graph takes at once; None for any number.
    output: str  # The graph's output with the vectors, shape (n, dim).
    # Whether the graph reads the vector off at the end token, which a tokenizer must then append.
    ends_matter: bool
