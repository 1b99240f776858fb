"""Where the vectors lie in a flat Faiss file, found without Faiss.

Faiss believes what a file says of itself: a damaged one can end the process, and with it a server
that goes on with an import. So the few fields of the flat kinds are read and checked here.

The layout is that of https://github.com/facebookresearch/faiss (``impl/index_write.cpp``), little
endian: four letters for the kind; dim as int32; rows, and two numbers that mean nothing, as int64;
a byte; the metric as int32. A flat index goes on with the count of its numbers as uint64, and its
vectors. An id map goes on with the index that it is over, the count of its ids as uint64, and its
ids as int64.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from imagedex.core.errors import InvalidRequest
from imagedex.segments.durable import storage_errors

_HEADER = struct.Struct("<iqqq?i")
_COUNT = struct.Struct("<Q")
_FLOAT_BYTES, _ID_BYTES = 4, 8
_INNER_PRODUCT, _L2 = 0, 1

_FLAT = {b"IxFI": "IndexFlatIP", b"IxF2": "IndexFlatL2", b"IxFl": "IndexFlat"}
_ID_MAPS = {b"IxMp": "IndexIDMap", b"IxM2": "IndexIDMap2"}
# Only to name what is refused.
_OTHERS = {
    b"IHNf": "IndexHNSWFlat",
    b"IxSQ": "IndexScalarQuantizer",
    b"IwFl": "IndexIVFFlat",
    b"IwSq": "IndexIVFScalarQuantizer",
    b"IwPQ": "IndexIVFPQ",
    b"IxPT": "IndexPreTransform",
    b"IxPq": "IndexPQ",
}
_TAKEN = "IndexFlatIP or IndexFlatL2, or an IndexIDMap over one of them"
_REMEDY = "restore it from a copy, or move it away if the Parquet file has the vectors"


@dataclass(frozen=True, slots=True, eq=False)
class FlatFile:
    """A flat Faiss file whose fields agree with each other and with its size."""

    file: Path
    kind: str  # As Faiss calls it.
    is_inner_product: bool  # Else its metric is the squared L2 distance.
    rows: int
    dim: int
    offset: int  # Of the first vector, in bytes.
    ids: NDArray[np.int64] | None  # Of an id map: the id of each vector.

    @classmethod
    def read(cls, file: Path) -> FlatFile:
        """Read all but the vectors.

        Raises InvalidRequest for a damaged file and for other kinds of index, which do not hold
        the vectors as they were; StorageError when it cannot be read.
        """
        with storage_errors("read", file), open(file, "rb") as stream:
            try:
                return _read(file, stream)
            except struct.error as error:
                raise _damaged(file, "it breaks off") from error


def _read(file: Path, stream: IO[bytes]) -> FlatFile:
    size = stream.seek(0, 2)
    stream.seek(0)
    letters = stream.read(4)
    id_map = _ID_MAPS.get(letters)
    if id_map is not None:
        mapped_rows, mapped_dim, _ = _read_header(file, stream)
        letters = stream.read(4)
    kind = _FLAT.get(letters)
    if kind is None:
        name = _OTHERS.get(letters) or f"index of the kind {letters!r}"
        holder = "" if id_map is None else f"{id_map} of "
        raise InvalidRequest(
            f"{str(file)!r} holds an {holder}{name}, expected {_TAKEN}: other kinds do not hold "
            "the vectors as they were. If the Parquet file has them, move this one away and "
            "import that alone."
        )
    rows, dim, metric = _read_header(file, stream)
    if metric not in (_INNER_PRODUCT, _L2):
        raise _damaged(file, f"its metric is {metric}, expected inner product or L2")
    (numbers,) = _COUNT.unpack(stream.read(_COUNT.size))
    offset = stream.tell()
    end = offset + numbers * _FLOAT_BYTES
    if numbers != rows * dim or end > size:
        raise _damaged(file, f"it does not hold {rows} vectors of {dim} numbers")
    ids = None
    if id_map is not None:
        if (mapped_rows, mapped_dim) != (rows, dim):
            raise _damaged(file, "its id map is over vectors of another number or length")
        stream.seek(end)
        ids = _read_ids(file, stream, rows)
        end = stream.tell()
        kind = f"{id_map} of {kind}"
    if end != size:
        raise _damaged(file, f"it has {size - end} bytes behind its end")
    return FlatFile(file, kind, metric == _INNER_PRODUCT, rows, dim, offset, ids)


def _read_header(file: Path, stream: IO[bytes]) -> tuple[int, int, int]:
    dim, rows, _, _, _, metric = _HEADER.unpack(stream.read(_HEADER.size))
    if dim < 1 or rows < 0:
        raise _damaged(file, f"it says that it holds {rows} vectors of {dim} numbers")
    return rows, dim, metric


def _read_ids(file: Path, stream: IO[bytes], rows: int) -> NDArray[np.int64]:
    (count,) = _COUNT.unpack(stream.read(_COUNT.size))
    if count != rows:
        raise _damaged(file, f"it has {count} ids for {rows} vectors")
    data = stream.read(rows * _ID_BYTES)
    if len(data) != rows * _ID_BYTES:
        raise _damaged(file, "it breaks off")
    return np.frombuffer(data, dtype="<i8").astype(np.int64)


def _damaged(file: Path, reason: str) -> InvalidRequest:
    return InvalidRequest(f"The Faiss file {str(file)!r} is damaged: {reason}; {_REMEDY}.")
