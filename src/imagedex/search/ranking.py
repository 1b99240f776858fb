"""The order in which the pages of a query give the images of one generation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from imagedex.search.finding import Found
from imagedex.segments import Hits

MAX_DEPTH = 10_000
"""How many images a query can be asked for, page by page."""

_DEPTHS = (100, 1_000, MAX_DEPTH)


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """The best images, as far as a query was asked; the same whoever asks, in whatever steps.

    It begins as the first page has it. A deeper search can find, among what was shown, one in a
    hundred that a shallower one missed (inverted lists): these come next. So no image is given
    twice, and none is left out.
    """

    hits: Hits
    reached: int  # So many were searched for.
    is_whole: bool  # Nothing comes after these.
    is_text_cut: bool

    @classmethod
    def begun(cls, first: Found, depth: int) -> Ranking:
        """Begin with the first page."""
        return cls(first.hits, depth, first.is_last, first.is_text_cut)

    def __len__(self) -> int:
        return len(self.hits.image_paths)

    def deepened(self, find: Callable[[int], Found], *, needed: int) -> Ranking:
        """Return the ranking with at least ``needed`` images, or all that there are.

        ``find`` searches for a number of best images. There are no more than MAX_DEPTH.
        """
        ranking = self
        while len(ranking) < needed and ranking.may_go_on:
            depth = next(depth for depth in _DEPTHS if depth > ranking.reached)
            ranking = ranking._with(find(depth), depth)
        return ranking

    @property
    def may_go_on(self) -> bool:
        """Whether a deeper search can find more."""
        return not self.is_whole and self.reached < MAX_DEPTH

    def _with(self, found: Found, depth: int) -> Ranking:
        seen = set(self.hits.image_paths)
        new = [i for i, path in enumerate(found.hits.image_paths) if path not in seen]
        hits = self.hits.followed_by(found.hits.only(new))
        return Ranking(hits, depth, found.is_last, self.is_text_cut)
