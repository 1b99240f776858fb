"""Adding vectors to indexes of different size, while another thread asks."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

from bench.background import Background
from bench.figures import Bench
from bench.scale.library import Library

_COUNT = 1000
_TIMES = 5


def append(bench: Bench, libraries: Sequence[Library]) -> None:
    """Append vectors to each of the indexes, several times; the median counts."""
    medians = []
    vectors_bytes = _COUNT * libraries[0].dim * 4
    for library in libraries:
        library.queries.refresh(library.prefix)
        with Asking(library) as asking:
            appended = [library.append(_COUNT, number=number) for number in range(_TIMES)]
        medians.append(statistics.median(seconds for seconds, _ in appended))
        written = statistics.median(written for _, written in appended) / vectors_bytes
        what = f"append of {_COUNT:,} to {library.rows:,}"
        bench.at_most(what, medians[-1], "s", 1)
        bench.at_most(f"{what}, written", written, "times the vectors", 3)
        bench.report(f"{what}, longest query meanwhile", asking.longest_seconds * 1000, "ms")
    for library in libraries:
        library.files.sweep(keep_jobs=[])
    bench.at_most("slowest append, against the fastest", max(medians) / min(medians), "times", 1.5)


class Asking(Background):
    """Another thread that asks one query after the other."""

    def __init__(self, library: Library) -> None:
        super().__init__()
        self._library = library
        self.longest_seconds = 0.0

    def _run(self) -> None:
        number = 100_000_000
        while not self._is_done.wait(0.005):
            number += 1
            started = time.perf_counter()
            answer = self._library.queries.query(self._library.prefix, str(number), 10)
            self.longest_seconds = max(self.longest_seconds, time.perf_counter() - started)
            assert len(answer.results) == 10
