"""Faiss files of vectors side by side (``IndexFlatIP``), and their search by Faiss.

Such a file is a header and the numbers. It is written and read here, block by block and mapped:
Faiss would have all vectors in memory to write them, and believes what a file says of itself, so
that a damaged header can end the process. The layout is that of ``impl/index_write.cpp`` of
https://github.com/facebookresearch/faiss, little endian: four letters for the kind; dim as int32;
rows, and two numbers that mean nothing, as int64; a byte; the metric as int32; the count of numbers
as uint64; the numbers.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from imagedex.core.errors import CorruptIndex
from imagedex.segments.durable import HashingFile, storage_errors
from imagedex.segments.mapped_file import MappedFile

# Faiss compares queries one by one, each with all vectors anew, until there are so many. From two
# on, a product of matrices is faster: 16 queries over 118,000 x 768 in 50 ms instead of 240.
faiss.cvar.distance_compute_blas_threshold = 2

_HEADER = struct.Struct("<4siqqq?iQ")
_KIND = b"IxFI"
_MEANINGLESS = 1 << 20  # What Faiss writes there.
_INNER_PRODUCT = 0
_ROWS_OF_A_BLOCK = 131_072
_REMEDY = "restore it from a copy of the index"


class FaissFile:
    """The vectors of one segment, as Faiss stores them. Immutable."""

    def __init__(self, vectors: NDArray[np.float32], mapped: MappedFile | None = None) -> None:
        self._vectors = vectors
        self._mapped = mapped

    @classmethod
    def build(cls, vectors: NDArray[np.float32]) -> FaissFile:
        """Take vectors that are in memory: float32, shape (rows, dim), not changed any more."""
        view = np.ascontiguousarray(vectors)[:]
        view.flags.writeable = False
        return cls(view)

    @classmethod
    def open(cls, path: Path, *, rows: int, dim: int) -> FaissFile:
        """Open a file; its vectors are mapped rather than read into memory.

        The file may be deleted while it is open. Raises CorruptIndex when it is missing or does
        not hold so many rows of this length, StorageError.
        """
        header = header_of(rows=rows, dim=dim)
        with storage_errors("read", path):
            try:
                with open(path, "rb") as file:
                    if file.read(len(header)) != header:
                        raise ValueError("it begins otherwise")
                    mapped = MappedFile(file, offset=len(header), rows=rows, dim=dim)
            except FileNotFoundError as error:
                raise CorruptIndex(f"The file {str(path)!r} is missing.") from error
            except ValueError as error:
                raise CorruptIndex(
                    f"The file {str(path)!r} is not an IndexFlatIP of {rows} x {dim}: {error}."
                ) from error
        return cls(mapped.numbers, mapped)

    @property
    def rows(self) -> int:
        """How many vectors there are."""
        return len(self._vectors)

    def best(
        self, queries: NDArray[np.float32], count: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return inner products in float32, best first, and rows, both of shape (n, count).

        ``queries`` has shape (n, dim), ``count`` is at most the number of rows.
        """
        scores = np.full((len(queries), 0), -np.inf, dtype=np.float32)
        rows = np.empty((len(queries), 0), dtype=np.int64)
        for start, block in self.blocks():
            with threads_for(len(queries)):
                found = faiss.knn(
                    queries, block, min(count, len(block)), metric=faiss.METRIC_INNER_PRODUCT
                )
            scores = np.concatenate([scores, found[0]], axis=1)
            rows = np.concatenate([rows, found[1] + start], axis=1)
            order = np.argsort(-scores, axis=1, kind="stable")[:, :count]
            scores = np.take_along_axis(scores, order, axis=1)
            rows = np.take_along_axis(rows, order, axis=1)
        return scores, rows

    def blocks(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield all vectors piece by piece, each with the row that it begins with.

        A piece is given up with the next one; of a large file no more than one is in memory.
        """
        size = _ROWS_OF_A_BLOCK if self._mapped is not None else max(1, len(self._vectors))
        for start in range(0, len(self._vectors), size):
            yield start, self._vectors[start : start + size]
            self.read_through()

    def vectors(self) -> NDArray[np.float32]:
        """Return all vectors, float32 of shape (rows, dim): a read-only view, not a copy.

        Whoever has read many of them says so by ``read_through``.
        """
        return self._vectors

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return a copy of the vectors of these rows, float32 of shape (len(rows), dim).

        Raises StorageError.
        """
        if self._mapped is None:
            return self._vectors[rows]
        with storage_errors("read", self._mapped.path):
            return self._mapped.take(rows)

    def write_to(self, file: HashingFile) -> None:
        """Write it as a Faiss file."""
        rows, dim = self._vectors.shape
        write_flat(file, [self._vectors], rows=rows, dim=dim)

    def read_through(self) -> None:
        """Give memory back after all vectors were read, where they are many."""
        if self._mapped is not None:
            self._mapped.give_back()


def header_of(*, rows: int, dim: int) -> bytes:
    """Return what stands before the numbers in a file of so many vectors."""
    return _HEADER.pack(
        _KIND, dim, rows, _MEANINGLESS, _MEANINGLESS, True, _INNER_PRODUCT, rows * dim
    )


def write_flat(
    file: HashingFile, blocks: Iterable[NDArray[np.float32]], *, rows: int, dim: int
) -> None:
    """Write vectors as Faiss would, in the order in which they come; ``rows`` in all.

    Raises CorruptIndex when they are not so many, or of another length.
    """
    file.write(header_of(rows=rows, dim=dim))
    written = 0
    for block in blocks:
        if block.shape[1] != dim:
            raise CorruptIndex(
                f"it has vectors of length {block.shape[1]}, expected {dim}; {_REMEDY}."
            )
        file.write(np.ascontiguousarray(block, dtype="<f4").reshape(-1).view(np.uint8).data)
        written += len(block)
    if written != rows:
        raise CorruptIndex(f"it has {written} vectors, expected {rows}; {_REMEDY}.")


def threads_for(queries: int) -> AbstractContextManager[None]:
    """Let Faiss use no more threads than there are queries, in the block.

    One query has no use for a second thread, but Faiss would wake one and wait for it: where other
    processes have the cores, that took 200 ms instead of one.
    """
    return faiss_threads(max(1, min(queries, cores())))


@contextmanager
def faiss_threads(count: int) -> Iterator[None]:
    """Let Faiss use so many threads for what this thread asks of it."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))
