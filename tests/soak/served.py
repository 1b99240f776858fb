"""What a server says of its index, by pictures instead of scores."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx

from support.server import wait_for_job

TEXT = "a picture"
_MOST_FOUND = 1000
_APART = 2e-4  # Scores of two contents differ by more, those of one content by less than _NEAR.
_NEAR = 2e-5


@dataclass(frozen=True)
class Served:
    """One answer, and what the index says of itself around it."""

    contents: dict[str, str | None]  # By path; None when the score is that of no known content.
    faults: tuple[str, ...]
    generation: int | None  # None when another one was published meanwhile.
    num_failed: int


class Scores:
    """Which content has which score; a picture is known again by it, wherever it lies."""

    def __init__(self, by_content: Mapping[str, float]) -> None:
        ordered = sorted((score, content) for content, score in by_content.items())
        for (one, _), (other, _) in pairwise(ordered):
            assert other - one > _APART, "Two contents have scores that are too near each other."
        self._scores = [score for score, _ in ordered]
        self._contents = [content for _, content in ordered]

    @classmethod
    def learn(cls, client: httpx.Client, folder: Path, index_prefix: Path) -> Scores:
        """Index a folder of pictures for itself; those whose scores are near another's go."""
        body = {"image_dir": str(folder), "index_prefix": str(index_prefix)}
        job_id = _json(client.post("/api/v1/index/trigger", json=body))["job_id"]
        assert wait_for_job(client, job_id)["status"] == "completed"
        query = {"text": TEXT, "top_k": _MOST_FOUND, "index_prefix": str(index_prefix)}
        chosen: dict[str, float] = {}
        last = 2.0
        for result in _json(client.post("/api/v1/query", json=query))["results"]:
            if last - result["score"] > _APART:
                last = result["score"]
                chosen[Path(result["image_path"]).name] = last
        return cls(chosen)

    @property
    def contents(self) -> list[str]:
        """The names of all contents."""
        return list(self._contents)

    def content_of(self, score: float) -> str | None:
        """Return the content that has this score."""
        place = bisect_left(self._scores, score - _NEAR)
        is_known = place < len(self._scores) and self._scores[place] <= score + _NEAR
        return self._contents[place] if is_known else None


def ask(client: httpx.Client, scores: Scores) -> Served:
    """Ask for all images of the default index."""
    before = _json(client.get("/api/v1/index/stats"))
    answer = _json(client.post("/api/v1/query", json={"text": TEXT, "top_k": _MOST_FOUND}))
    after = _json(client.get("/api/v1/index/stats"))
    results = answer["results"]
    contents = {r["image_path"]: scores.content_of(r["score"]) for r in results}
    faults = []
    if len(contents) < len(results):
        faults.append(f"{len(results) - len(contents)} images were found twice")
    if answer["index_stats"]["total_images"] != len(results):
        faults.append(
            f"{answer['index_stats']['total_images']} images were said to be there, "
            f"{len(results)} were found"
        )
    is_one = before["generation"] == after["generation"]
    return Served(
        contents, tuple(faults), after["generation"] if is_one else None, after["num_failed"]
    )


def _json(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code in (200, 202), answer.text
    document: dict[str, Any] = answer.json()
    return document
