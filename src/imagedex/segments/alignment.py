"""Whether a search structure holds the vectors of the Parquet file that it was made from."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from imagedex.core.errors import CorruptIndex
from imagedex.segments._faiss import FaissFile
from imagedex.segments._parquet import sample_vectors
from imagedex.segments.records import FileEntry, SegmentEntry

SAMPLED_ROWS = 64


def require_aligned(
    index_prefix: Path, segment: SegmentEntry, faiss: FileEntry, *, dim: int
) -> None:
    """Compare a segment with its Faiss file: the number of rows, and some rows bit by bit.

    Raises CorruptIndex, which names the first row that differs; StorageError.
    """
    path = index_prefix / faiss.name
    file = FaissFile.open(path, rows=segment.rows, dim=dim)  # Its vectors live as long as it does.
    rows, vectors = sample_vectors(index_prefix / segment.parquet.name, SAMPLED_ROWS)
    if vectors.shape[1] != dim:
        raise CorruptIndex(
            f"Segment {segment.number} has vectors of length {vectors.shape[1]} but its manifest "
            f"expects {dim}; restore it from a copy of the index."
        )
    differs = np.flatnonzero((file.vectors()[rows] != vectors).any(axis=1))
    if len(differs):
        raise CorruptIndex(
            f"The vector in row {int(rows[differs[0]])} of {str(path)!r} is not the one of the "
            f"Parquet file beside it ({len(differs)} of {len(rows)} rows that were compared)."
        )
