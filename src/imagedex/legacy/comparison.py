"""How far two searches agree on the best images for the same texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean


@dataclass(frozen=True, slots=True)
class QueryAgreement:
    """What was found for one text."""

    text: str
    overlap: float  # Share of the old best that are among the new best, 0 to 1.
    is_same_first: bool  # Whether both find the same image first.
    # Kendall's tau of the images that both found: 1 for the same order, -1 for the opposite one.
    rank_correlation: float | None  # None when both found fewer than two of the same.


@dataclass(frozen=True, slots=True)
class AgreementReport:
    """What was found for all texts, at least one."""

    top_k: int
    old_images: int
    new_images: int
    queries: tuple[QueryAgreement, ...]  # In the order in which they were asked.

    @property
    def overlap(self) -> float:
        """The mean overlap."""
        return fmean(query.overlap for query in self.queries)

    @property
    def same_first(self) -> float:
        """The share of texts for which both find the same image first."""
        return fmean(query.is_same_first for query in self.queries)

    @property
    def rank_correlation(self) -> float | None:
        """The mean rank correlation of the texts that have one."""
        known = [q.rank_correlation for q in self.queries if q.rank_correlation is not None]
        return fmean(known) if known else None


def compare_rankings(text: str, old: Sequence[str], new: Sequence[str]) -> QueryAgreement:
    """Compare the paths that two searches found, best first.

    Without anything in ``old`` nothing agrees.
    """
    place_in_new = {path: place for place, path in enumerate(new)}
    places = [place_in_new[path] for path in old if path in place_in_new]
    return QueryAgreement(
        text=text,
        overlap=len(places) / len(old) if old else 0.0,
        is_same_first=bool(old and new) and old[0] == new[0],
        rank_correlation=_kendall(places),
    )


def _kendall(places: Sequence[int]) -> float | None:
    """Return Kendall's tau of places against their order.

    Pairs in order less pairs out of order, as a share of all pairs (Kendall 1938, "A New Measure
    of Rank Correlation"). There are no ties.
    """
    if len(places) < 2:
        return None
    pairs = list(combinations(places, 2))
    return sum(1 if first < second else -1 for first, second in pairs) / len(pairs)
