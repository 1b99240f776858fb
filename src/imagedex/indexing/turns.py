"""Who publishes to an index at this moment: what brings images in, or a merge beside it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from imagedex.core.images import RowLocation
from imagedex.segments import MovedRows


class IndexTurn:
    """The turn of one index: taken to publish a generation and record it in the catalog.

    Whoever has it finds index and catalog at the same generation, but for locations that a merge
    has changed and the catalog is still to be told of; ``now`` knows these.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._moved: MovedRows | None = None
        self._recorded = 0

    @contextmanager
    def held(self) -> Iterator[None]:
        """Wait for the turn and hold it in the block; a thread may take it again inside."""
        with self._lock:
            yield

    @property
    def is_moving(self) -> bool:
        """Whether there are moves that the catalog has not been told of."""
        return self._moved is not None

    def begin_move(self, moved: MovedRows) -> None:
        """Take note of what the catalog is to be told."""
        self._moved = moved
        self._recorded = 0

    def next_moves(self, count: int) -> list[tuple[RowLocation, RowLocation]]:
        """Return some of what the catalog is to be told next, nothing when that is all."""
        return self._moved.part(self._recorded, count) if self._moved is not None else []

    def moves_recorded(self, count: int) -> None:
        """Take note that the catalog was told the next so many moves."""
        self._recorded += count

    def end_move(self) -> None:
        """Take the catalog's locations as they are from now on."""
        self._moved = None

    def now(self, location: RowLocation) -> RowLocation | None:
        """Return where a row lies that the catalog locates there; None when it is gone."""
        return location if self._moved is None else self._moved.now(location)


class IndexTurns:
    """The turns of all indexes of a process. Safe to call from several threads."""

    def __init__(self) -> None:
        self._turns: dict[Path, IndexTurn] = {}
        self._lock = threading.Lock()

    def of(self, index_prefix: Path) -> IndexTurn:
        """Return the one turn of an index."""
        with self._lock:
            return self._turns.setdefault(index_prefix, IndexTurn())
