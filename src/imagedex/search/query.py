"""What is asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TypeAlias

from imagedex.core.errors import InvalidRequest
from imagedex.segments import ImageFilter

MAX_TEXT_CHARACTERS = 10_000
MAX_TOP_K = 1_000
MAX_TERMS = 16
DEFAULT_DUPLICATE_SCORE = 0.98
PLAIN_TERMS = 2  # "This but not that".
PLAIN_RESULTS = 100  # For more, all vectors of a large index are compared.


@dataclass(frozen=True, slots=True)
class TextTerm:
    """What the images show, in words."""

    text: str
    weight: float = 1.0  # From -1 to 1, and not 0; below 0 asks for what is unlike it.


@dataclass(frozen=True, slots=True)
class ImageTerm:
    """An image of the index."""

    image_id: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class PictureTerm:
    """A picture that need not be in any index."""

    content_hash: str  # SHA-256 of its file: what tells pictures apart.
    vector: bytes = field(compare=False, repr=False)  # Of unit length, native float32.
    weight: float = 1.0
    # Of the model that made the vector; a query to an index of another one is refused.
    fingerprint: str | None = field(default=None, compare=False)


Term: TypeAlias = TextTerm | ImageTerm | PictureTerm


@dataclass(frozen=True, slots=True)
class Query:
    """One question to an index; equal ones have equal answers from one generation."""

    terms: tuple[Term, ...]  # The direction searched is their weighted sum.
    top_k: int = 10  # Results of an answer, which is a page.
    image_filter: ImageFilter | None = None
    min_score: float | None = None  # Results below are left out.
    duplicate_score: float | None = None  # Results so alike count as one; None: never.

    @classmethod
    def of_text(cls, text: str, top_k: int = 10) -> Query:
        """Return the plainest query."""
        return cls((TextTerm(text),), top_k)

    @property
    def is_plain(self) -> bool:
        """Whether its first page costs about what that of a single text costs."""
        return (
            self.image_filter is None
            and self.duplicate_score is None
            and len(self.terms) <= PLAIN_TERMS
            and self.top_k <= PLAIN_RESULTS
        )

    @property
    def text(self) -> str:
        """The text of a query by one text; empty for others."""
        only = self.terms[0]
        return only.text if len(self.terms) == 1 and isinstance(only, TextTerm) else ""

    @property
    def weight(self) -> int:
        """About how many results take as much memory as the query itself."""
        ids = self.image_filter.image_ids if self.image_filter is not None else None
        characters = sum(len(term.text) for term in self.terms if isinstance(term, TextTerm))
        return 1 + len(ids or ()) + characters // 100


def require_valid_query(query: Query) -> None:
    """Raise InvalidRequest, naming what is wrong, unless the query can be answered."""
    if not 1 <= len(query.terms) <= MAX_TERMS:
        raise InvalidRequest(
            f"The query has {len(query.terms)} terms, expected 1 to {MAX_TERMS}; name a text or "
            "an image."
        )
    for term in query.terms:
        if not (math.isfinite(term.weight) and 0 < abs(term.weight) <= 1):
            raise InvalidRequest(
                f"A term has the weight {term.weight}, expected -1 to 1, and not 0."
            )
        if isinstance(term, TextTerm):
            _require_valid_text(term.text)
    if not 1 <= query.top_k <= MAX_TOP_K:
        raise InvalidRequest(f"top_k is {query.top_k}, expected 1 to {MAX_TOP_K}.")


def _require_valid_text(text: str) -> None:
    if not text.strip():
        raise InvalidRequest("The query text is empty; describe the images that you look for.")
    if len(text) > MAX_TEXT_CHARACTERS:
        raise InvalidRequest(
            f"The query text has {len(text)} characters, expected at most {MAX_TEXT_CHARACTERS}; "
            "shorten it."
        )
    if "\0" in text:
        raise InvalidRequest("The query text has a NUL character; remove it.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            "The query text has half of a surrogate pair, which is no character; remove it."
        ) from error
