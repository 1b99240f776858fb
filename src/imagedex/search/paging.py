"""One page of the results of a query."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from imagedex.core.ids import image_id_of
from imagedex.search.duplicates import group
from imagedex.search.finding import Finder, Found
from imagedex.search.interfaces import Result
from imagedex.search.live import Serving
from imagedex.search.query import Query
from imagedex.search.ranking import MAX_DEPTH, Ranking
from imagedex.segments import Hits


@dataclass(frozen=True, slots=True)
class Page:
    """What it holds, and where the next one begins."""

    results: tuple[Result, ...]
    is_text_cut: bool
    next_offset: int | None  # Results before it; None when there is no next page.


def find_page(finder: Finder, serving: Serving, query: Query, offset: int) -> Page:
    """Return the page of a query that comes after ``offset`` results."""
    wanted = finder.prepare(serving.generation, query)
    if offset == 0 and query.duplicate_score is None:
        found = serving.find(wanted)
        count = len(found.hits.image_paths)
        results = _results(found.hits, zip(range(count), repeat(1)), 0)
        return Page(results, found.is_text_cut, None if found.is_last else count)
    ranking = serving.rankings.get(query)
    if ranking is None:
        ranking = Ranking.begun(serving.find(wanted), query.top_k)

    def find(depth: int) -> Found:
        return serving.find(replace(wanted, k=depth))

    end = min(offset + query.top_k, MAX_DEPTH)
    ranking = ranking.deepened(find, needed=end)
    if query.duplicate_score is None:
        groups = list(zip(range(min(end, len(ranking))), repeat(1)))
        has_more = len(ranking) > end or ranking.may_go_on
    else:
        groups, has_more = _grouped(serving, ranking, query.duplicate_score, end)
        while not has_more and ranking.may_go_on:
            ranking = ranking.deepened(find, needed=len(ranking) + 1)
            groups, has_more = _grouped(serving, ranking, query.duplicate_score, end)
    serving.rankings.put(query, ranking, weight=query.weight + len(ranking))
    results = _results(ranking.hits, groups[offset:], offset)
    goes_on = has_more and end < MAX_DEPTH
    return Page(results, ranking.is_text_cut, end if goes_on else None)


def _grouped(
    serving: Serving, ranking: Ranking, score: float, enough: int
) -> tuple[list[tuple[int, int]], bool]:
    def vectors(start: int, end: int) -> NDArray[np.float32]:
        return serving.generation.vectors(ranking.hits.places[start:end])

    groups, has_more = group(len(ranking), vectors, score=score, enough=enough)
    return [(one.place, one.images) for one in groups], has_more


def _results(hits: Hits, groups: Iterable[tuple[int, int]], offset: int) -> tuple[Result, ...]:
    """Return what is shown: of each group the place of its best image, and how many it has."""
    # Rounding can take the product of two unit vectors a little beyond 1.
    scores = np.clip(hits.scores, -1.0, 1.0).tolist()
    return tuple(
        Result(
            rank=rank,
            score=scores[place],
            image_path=hits.image_paths[place],
            image_id=image_id_of(hits.image_paths[place]),
            stands_for=images,
        )
        for rank, (place, images) in enumerate(groups, start=offset + 1)
    )
