"""An old index: a Parquet file with the paths, and a Faiss file, the Parquet, or both with the
vectors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imagedex.core.errors import InvalidRequest
from imagedex.legacy._faiss import FlatVectors
from imagedex.legacy._parquet import LegacyTable
from imagedex.legacy.unit import UnitVectors, to_unit

# Two files that were written from the same vectors can differ by rounding (float16, scaling);
# vectors of different pictures differ by much more.
_SAME_DIRECTION = 5e-3
_ROWS_AT_ONCE = 4096


@dataclass(frozen=True, slots=True)
class VectorCheck:
    """What was found while all vectors of a pair were read once."""

    unusable: int  # Zero or not finite, or without a direction for another reason.
    scaled: int  # Not of unit length.
    compared: int  # Rows whose vectors are in both files, and agree.


class LegacyPair:
    """The two files, open. Not safe for several threads."""

    def __init__(self, table: LegacyTable, flat: FlatVectors | None, dim: int) -> None:
        self._table = table
        self._flat = flat
        self._streamed = None if flat is not None else _StreamedVectors(table)
        self.rows = table.rows
        self.dim = dim

    @classmethod
    def open(
        cls, prefix: Path, *, path_column: str | None = None, vector_column: str | None = None
    ) -> LegacyPair:
        """Open ``PREFIX.parquet`` and, where there is one, ``PREFIX.faiss``.

        Raises InvalidRequest when the files are not what an old index consists of, or have
        different numbers of rows; StorageError when they cannot be read.
        """
        parquet, faiss = files_of(prefix)
        table = LegacyTable.open(parquet, path_column=path_column, vector_column=vector_column)
        if table.rows == 0:
            raise InvalidRequest(f"{str(parquet)!r} has no rows, so there is nothing to adopt.")
        if not faiss.exists():
            if table.vector_column is None:
                raise InvalidRequest(
                    f"There are no vectors: {str(parquet)!r} has no column of them, and there is "
                    f"no file {str(faiss)!r}."
                )
            return cls(table, None, next(table.vectors()).shape[1])
        flat = FlatVectors.open(faiss)
        if flat.rows != table.rows:
            raise InvalidRequest(
                f"{str(faiss)!r} has {flat.rows:,} vectors but {str(parquet)!r} has {table.rows:,} "
                "rows; they do not belong together. Restore both from one copy."
            )
        return cls(table, flat, flat.dim)

    @property
    def path_column(self) -> str:
        """The column of the paths."""
        return self._table.path_column

    @property
    def vector_column(self) -> str | None:
        """The column of the vectors, None where only the Faiss file has them."""
        return self._table.vector_column

    @property
    def faiss_kind(self) -> str | None:
        """What the Faiss file holds, None where there is none."""
        return None if self._flat is None else self._flat.kind

    def paths(self) -> list[str | None]:
        """Return the path of each row as it stands in the file, None where there is none."""
        return self._table.paths()

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the vectors of rising rows, as they are stored: float32, shape (len(rows), dim).

        Of vectors in both files those of the Faiss file count, which the old searches used.
        Where they come from the Parquet file, rising calls read it once.
        """
        if self._flat is not None:
            return self._flat.take(rows)
        assert self._streamed is not None  # noqa: S101 - one of both is always there.
        return self._streamed.take(rows) if len(rows) else np.empty((0, self.dim), np.float32)

    def best(self, queries: NDArray[np.float32], count: int) -> NDArray[np.int64]:
        """Return for each query its best rows, best first, as a search of the old index does.

        ``queries`` is float32 of shape (n, dim), ``count`` at most the number of rows; the result
        has shape (n, count), with -1 where no further row has a score.
        """
        if self._flat is not None:
            return self._flat.best(queries, count)
        scores = np.empty((len(queries), 0), dtype=np.float32)
        rows = np.empty((len(queries), 0), dtype=np.int64)
        for start, vectors in self._blocks():
            is_finite = np.asarray(np.isfinite(vectors).all(axis=1))
            products = queries @ np.where(is_finite[:, np.newaxis], vectors, 0).T
            products[:, ~is_finite] = -np.inf
            places = np.tile(np.arange(start, start + len(vectors)), (len(queries), 1))
            scores = np.concatenate([scores, products], axis=1)
            rows = np.concatenate([rows, places], axis=1)
            # Stable: of equal scores the earlier row stays first, as in Faiss.
            order = np.argsort(-scores, axis=1, kind="stable")[:, :count]
            scores = np.take_along_axis(scores, order, axis=1)
            rows = np.take_along_axis(rows, order, axis=1)
        return np.where(scores > -np.inf, rows, -1)

    def check_vectors(self) -> VectorCheck:
        """Read all vectors once and hold those of both files against each other.

        Raises InvalidRequest at the first row whose vectors differ: then rows of one file do
        not mean the rows of the other.
        """
        unusable = scaled = compared = 0
        for start, vectors in self._blocks():
            found = to_unit(vectors)
            if self._flat is not None and self._table.vector_column is not None:
                used = to_unit(self._flat.take(np.arange(start, start + len(vectors))))
                self._require_same(start, used, found)
                compared += len(vectors)
                found = used
            unusable += int(np.count_nonzero(~found.is_usable))
            scaled += int(np.count_nonzero(found.is_scaled))
        return VectorCheck(unusable, scaled, compared)

    def _blocks(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield all vectors with the row of the first, from the Parquet file where it has them."""
        start = 0
        if self._table.vector_column is not None:
            for block in self._table.vectors():
                if block.shape[1] != self.dim:
                    raise InvalidRequest(
                        f"The vectors in {str(self._table.file)!r} have {block.shape[1]} numbers "
                        f"but those in the Faiss file {self.dim}; they do not belong together."
                    )
                yield start, block
                start += len(block)
            return
        for start in range(0, self.rows, _ROWS_AT_ONCE):
            yield start, self.take(np.arange(start, min(start + _ROWS_AT_ONCE, self.rows)))

    def _require_same(self, start: int, ours: UnitVectors, theirs: UnitVectors) -> None:
        with np.errstate(invalid="ignore"):  # Of rows without a direction.
            distances = np.sqrt(np.square(ours.vectors - theirs.vectors).sum(axis=1))
        is_same = np.where(
            ours.is_usable & theirs.is_usable,
            distances <= _SAME_DIRECTION,
            ours.is_usable == theirs.is_usable,
        )
        if not is_same.all():
            row = start + int(np.flatnonzero(~is_same)[0])
            raise InvalidRequest(
                f"The two files do not belong together: in row {row} the Faiss file has another "
                f"vector than {str(self._table.file)!r}. Restore both from one copy, or move the "
                "Faiss file away to take the vectors of the Parquet file."
            )


def files_of(prefix: Path) -> tuple[Path, Path]:
    """Return the Parquet and the Faiss file of an old index."""
    return prefix.with_name(f"{prefix.name}.parquet"), prefix.with_name(f"{prefix.name}.faiss")


class _StreamedVectors:
    """Rows out of a stream that is read again only when an earlier row is asked for."""

    def __init__(self, table: LegacyTable) -> None:
        self._table = table
        self._batches: Iterator[NDArray[np.float32]] = iter(())
        self._batch: NDArray[np.float32] | None = None
        self._start = 0  # Row of the first vector of the batch.

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        pieces = []
        done = 0
        while done < len(rows):
            batch = self._batch_with(int(rows[done]))
            end = int(np.searchsorted(rows, self._start + len(batch)))
            pieces.append(batch[rows[done:end] - self._start])
            done = end
        return np.concatenate(pieces)

    def _batch_with(self, row: int) -> NDArray[np.float32]:
        if self._batch is None or row < self._start:
            self._batches, self._batch, self._start = self._table.vectors(), None, 0
        batch = self._batch
        while batch is None or row >= self._start + len(batch):
            self._start += 0 if batch is None else len(batch)
            batch = next(self._batches)
        self._batch = batch
        return batch
