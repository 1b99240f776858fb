"""Queries over HTTP while images come and go and the index is rebuilt: is each answer right?

An answer is right when it is one state of the index, whole: all its images and no other, each once,
best first, with the score that the image has in every other answer to this text, and no state that
is older than one that the same client has seen before.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from support.server import ServerProcess, wait_for_job

_TEXTS = ("a red circle", "blue squares on grass", "night", "a photo of the sea")
_TOP_K = 1000  # More than the index holds, so that an answer shows all of it.


@dataclass
class MixedLoadReport:
    """What the clients saw."""

    failed: list[str] = field(default_factory=list)  # Answers other than 200.
    wrong: list[str] = field(default_factory=list)
    idle_seconds: list[float] = field(default_factory=list)  # Of each query, before the changes,
    busy_seconds: list[float] = field(default_factory=list)  # and during them.
    states_seen: int = 0
    rebuilds: int = 0  # That completed.

    @property
    def p99_ratio(self) -> float:
        """How many times as long a slow query took during the changes as before."""
        busy, idle = (np.percentile(s, 99) for s in (self.busy_seconds, self.idle_seconds))
        return float(busy / idle)


class _States:
    """All states that the index may have been in, in their order."""

    def __init__(self) -> None:
        self._states: list[frozenset[str]] = []
        self._scores: dict[tuple[str, str], float] = {}
        self._lock = threading.Lock()
        self._seen: set[int] = set()

    def add(self, images: frozenset[str]) -> None:
        """Allow a state from now on."""
        with self._lock:
            self._states.append(images)

    @property
    def last(self) -> int:
        """The number of the last one."""
        return len(self._states) - 1

    @property
    def seen(self) -> int:
        """How many of them an answer showed."""
        return len(self._seen)

    def check(self, text: str, answer: dict[str, Any], least: int) -> tuple[int, str | None]:
        """Return which state an answer shows, and what is wrong with it."""
        results = answer["results"]
        paths = [result["image_path"] for result in results]
        scores = [result["score"] for result in results]
        if len(set(paths)) != len(paths) or len(paths) != answer["index_stats"]["total_images"]:
            return least, f"{len(paths)} results of {answer['index_stats']}, or some twice"
        if scores != sorted(scores, reverse=True):
            return least, f"the results for {text!r} are not in order"
        with self._lock:
            for path, score in zip(paths, scores, strict=True):
                if abs(self._scores.setdefault((text, path), score) - score) > 1e-5:
                    return least, f"{path!r} has another score than before"
            images = frozenset(paths)
            states = range(least, len(self._states))
            state = next((n for n in states if self._states[n] == images), None)
            if state is None:
                return least, f"{len(paths)} images that are no state since state {least}"
            self._seen.add(state)
            return state, None


def query_under_changes(
    server: ServerProcess,
    first: Sequence[Path],
    later: Sequence[Path],
    *,
    clients: int = 3,
    idle_queries: int = 50,
) -> MixedLoadReport:
    """Index ``first``; then, under queries, replace them by ``later``, one after the other.

    Rebuilds run all the while, one after the other.
    """
    report = MixedLoadReport()
    states = _States()
    images = frozenset(map(str, first))
    with server.client() as control:
        _notify(control, sorted(images))
        states.add(images)
        _ask(server, states, report, report.idle_seconds, stop_after=idle_queries)
        is_over = threading.Event()
        threads = [
            threading.Thread(
                target=_ask,
                args=(server, states, report, report.busy_seconds),
                kwargs={"until": is_over},
            )
            for _ in range(clients)
        ]
        threads.append(threading.Thread(target=_rebuild, args=(server, report, is_over)))
        for thread in threads:
            thread.start()
        try:
            for new, old in zip(later, first, strict=False):
                images |= {str(new)}
                states.add(images)
                _notify(control, [str(new)])
                old.unlink()
                images -= {str(old)}
                states.add(images)
                _notify(control, [str(old)])
        finally:
            is_over.set()
            for thread in threads:
                thread.join()
        _ask(server, states, report, [], stop_after=len(_TEXTS), is_last=True)
    report.states_seen = states.seen
    return report


def _notify(client: httpx.Client, image_paths: list[str]) -> None:
    answer = client.post("/api/v1/index/notify", json={"image_paths": image_paths})
    answer.raise_for_status()
    status = wait_for_job(client, answer.json()["job_id"])
    assert status["status"] == "completed", status


def _rebuild(server: ServerProcess, report: MixedLoadReport, is_over: threading.Event) -> None:
    with server.client() as client:
        while not is_over.is_set():
            answer = client.post("/api/v1/index/rebuild", json={})
            if answer.status_code != 202:
                report.failed.append(f"rebuild: {answer.status_code} {answer.text}")
                return
            status = wait_for_job(client, answer.json()["job_id"])
            if status["status"] != "completed":
                report.failed.append(f"rebuild: {status}")
                return
            report.rebuilds += 1


def _ask(
    server: ServerProcess,
    states: _States,
    report: MixedLoadReport,
    seconds: list[float],
    *,
    until: threading.Event | None = None,
    stop_after: int = 0,
    is_last: bool = False,
) -> None:
    least = states.last if is_last else 0
    asked = 0
    with server.client() as client:
        while asked < stop_after or (until is not None and not until.is_set()):
            text = _TEXTS[asked % len(_TEXTS)]
            started = time.perf_counter()
            answer = client.post("/api/v1/query", json={"text": text, "top_k": _TOP_K})
            seconds.append(time.perf_counter() - started)
            asked += 1
            if answer.status_code != 200:
                report.failed.append(f"{answer.status_code} {answer.text}")
                continue
            least, fault = states.check(text, answer.json(), least)
            if fault is not None:
                report.wrong.append(fault)
