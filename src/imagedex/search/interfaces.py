"""What answering queries is to the rest of Imagedex."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Result:
    """One found image."""

    rank: int  # From 1, over all pages.
    score: float  # Inner product of the unit vectors, from float64 rounded to float32: -1 to 1.
    image_path: str
    image_id: str
    stands_for: int = 1  # Itself and its near-duplicates, if the query collapses them.


@dataclass(frozen=True, slots=True)
class QueryAnswer:
    """The answer to a query, or a page of it, whole from one generation."""

    query: str  # The text of a query by one text; empty for others.
    results: tuple[Result, ...]  # Best first; equal scores in order of path.
    query_time_seconds: float
    total_images: int  # That the generation holds.
    model_name: str
    generation: int  # 0 while nothing is indexed.
    is_cached: bool
    is_text_cut: bool  # A text was longer than the model reads, so that its end did not count.
    next_cursor: str | None = None  # Of the page after this one, if there is one.
