"""How many pictures a model should get at once: found on the work itself."""

from __future__ import annotations

from statistics import median

SAMPLES = 3
"""Batches of a size that are timed. The median of three bears one that the machine disturbed,
or that was slow because a runtime prepares itself for a shape that is new to it."""

ENOUGH = 0.97
"""Share of the best rate with which a smaller batch is preferred, since it takes less memory."""

_PATIENCE = 2
"""Sizes that may bring nothing before larger ones are left untried: a processor's caches often
suffice for a few pictures only, and a batch that was tried once costs its memory for good."""


class BatchSizer:
    """Tries batches of 1, 2, 4 … pictures and settles on the least that is as fast as any.

    Knows no clock: whoever runs batches asks for the next size and tells how long it took. The
    last batch of a chunk may be smaller than was asked for. One caller at a time.
    """

    def __init__(self, largest: int) -> None:
        """Try sizes up to ``largest``, which is one of them. Raises ValueError below 1."""
        if largest < 1:
            raise ValueError(f"A batch has at least one picture, not {largest}.")
        powers = [1 << power for power in range(largest.bit_length())]
        self._sizes = powers if powers[-1] == largest else [*powers, largest]
        self._seconds: dict[int, list[float]] = {size: [] for size in self._sizes}
        self._settled: int | None = None

    @property
    def is_settled(self) -> bool:
        """Whether the size has been found, and will not change any more."""
        return self._settled is not None

    def next_size(self) -> int:
        """Return how many pictures the next batch should have, if there are as many."""
        if self._settled is not None:
            return self._settled
        return next(size for size in self._sizes if len(self._seconds[size]) < SAMPLES)

    def record(self, size: int, seconds: float) -> None:
        """Take note that a batch of ``size`` pictures took this long."""
        if self._settled is not None or size not in self._seconds:
            return
        if len(self._seconds[size]) < SAMPLES:
            self._seconds[size].append(max(seconds, 1e-9))  # A clock may stand still.
            self._settle()

    def _settle(self) -> None:
        rates: dict[int, float] = {}  # Pictures a second, of all sizes up to the first untimed.
        best, in_vain = 0.0, 0
        for size in self._sizes:
            if len(self._seconds[size]) < SAMPLES:
                return
            rates[size] = size / median(self._seconds[size])
            in_vain = in_vain + 1 if rates[size] * ENOUGH < best else 0
            best = max(best, rates[size])
            if in_vain == _PATIENCE:
                break
        self._settled = next(size for size, rate in rates.items() if rate >= ENOUGH * best)
