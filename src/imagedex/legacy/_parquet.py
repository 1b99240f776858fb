"""The Parquet file of an old index; with segments/_parquet the only module that imports Arrow.

Its columns have no fixed names. The paths are a column of texts; the vectors, if it has them, are
a column of lists of floating-point numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from imagedex.core.errors import InvalidRequest, StorageError
from imagedex.segments.durable import HashingFile, storage_errors

PATH_NAMES = ("path", "image_path", "file_path")
VECTOR_NAMES = ("embedding", "vector")

_ROWS_PER_BATCH = 4096
_BUFFER_BYTES = 1 << 20  # Without it a column of a row group, which may be all rows, is read whole.


@dataclass(frozen=True, slots=True)
class LegacyTable:
    """A Parquet file whose columns were found; nothing of it is kept in memory."""

    file: Path
    rows: int
    path_column: str
    vector_column: str | None  # None when the vectors are in the Faiss file alone.

    @classmethod
    def open(
        cls, file: Path, *, path_column: str | None = None, vector_column: str | None = None
    ) -> LegacyTable:
        """Find the columns: those that are named here, else by their types, then by usual names.

        Raises InvalidRequest for a file that is no Parquet or whose columns cannot be told
        apart, StorageError when it cannot be read.
        """
        with _opened(file) as parquet:
            schema = parquet.schema_arrow
            return cls(
                file,
                parquet.metadata.num_rows,
                _path_column(file, schema, path_column),
                _vector_column(file, schema, vector_column),
            )

    def paths(self) -> list[str | None]:
        """Return the path of each row, None where there is none."""
        with _opened(self.file) as parquet:
            column = parquet.read(columns=[self.path_column], use_threads=False).column(0)
            try:
                paths: list[str | None] = column.to_pylist()
            except UnicodeDecodeError as error:
                raise InvalidRequest(
                    f"The column {self.path_column!r} of {str(self.file)!r} holds text that is "
                    f"not UTF-8 ({error.reason}); write the file again."
                ) from error
            return paths

    def vectors(self) -> Iterator[NDArray[np.float32]]:
        """Yield all vectors in row order, in batches: float32, shape (some rows, dim).

        A row without a vector is all NaN. Raises InvalidRequest when vectors differ in length.
        """
        if self.vector_column is None:
            raise ValueError(f"{str(self.file)!r} has no column of vectors.")
        start = 0
        dim: int | None = None
        with _opened(self.file) as parquet:
            for batch in parquet.iter_batches(
                _ROWS_PER_BATCH, columns=[self.vector_column], use_threads=False
            ):
                column = batch.column(0)
                dim = self._require_one_length(column, start, dim)
                yield _to_matrix(column, dim)
                start += len(column)

    def _require_one_length(self, column: Any, start: int, dim: int | None) -> int:
        lengths = np.asarray(pc.fill_null(pc.list_value_length(column), -1))
        if dim is None:
            dim = max(int(lengths.max(initial=0)), 0)
        wrong = np.flatnonzero((lengths != dim) & (lengths != -1))
        if len(wrong) or dim == 0:
            row = int(wrong[0]) if len(wrong) else 0
            raise InvalidRequest(
                f"Row {start + row} of {str(self.file)!r} has a vector of {int(lengths[row])} "
                f"numbers, expected {dim or 'at least 1'}; all must have one length."
            )
        return dim


def write_table(
    file: HashingFile,
    rows: Iterable[tuple[Sequence[str], NDArray[np.float32]]],
    *,
    path_column: str,
    vector_column: str,
) -> None:
    """Write paths and vectors, which come in batches: some paths, as many vectors in float32."""
    names = pa.field(path_column, pa.string()), pa.field(vector_column, _LIST)
    schema = pa.schema(names)
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for paths, vectors in rows:
            count, dim = vectors.shape
            offsets = pa.array(np.arange(count + 1, dtype=np.int32) * dim)
            lists = pa.ListArray.from_arrays(
                offsets, pa.array(np.ascontiguousarray(vectors).reshape(count * dim)), type=_LIST
            )
            columns = [pa.array(paths, pa.string()), lists]
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))


_LIST = pa.list_(pa.float32())


def _path_column(file: Path, schema: Any, named: str | None) -> str:
    found = _column(
        file, schema, named, PATH_NAMES, _is_text, what="paths", wanted="texts", flag="path"
    )
    if found is None:
        raise InvalidRequest(
            f"{str(file)!r} has no column of texts, so no image paths; its columns are "
            f"{_described(schema)}."
        )
    return found


def _vector_column(file: Path, schema: Any, named: str | None) -> str | None:
    return _column(
        file,
        schema,
        named,
        VECTOR_NAMES,
        _is_vector,
        what="vectors",
        wanted="lists of floating-point numbers",
        flag="vector",
    )


def _column(
    file: Path,
    schema: Any,
    named: str | None,
    usual: Sequence[str],
    is_wanted: Callable[[Any], bool],
    *,
    what: str,
    wanted: str,
    flag: str,
) -> str | None:
    found = [field.name for field in schema if is_wanted(field.type)]
    if named is not None:
        if named in found and schema.names.count(named) == 1:
            return named
        raise InvalidRequest(
            f"{str(file)!r} has no column {named!r} of {wanted}; its columns are "
            f"{_described(schema)}."
        )
    if len(found) > 1:
        found = [name for name in found if name in usual]
        if len(found) != 1:
            raise InvalidRequest(
                f"Which column of {str(file)!r} has the {what}? Name it by --{flag}-column; its "
                f"columns are {_described(schema)}."
            )
    return found[0] if found else None


def _is_text(kind: Any) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_vector(kind: Any) -> bool:
    is_list = (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )
    return bool(is_list and pa.types.is_floating(kind.value_type))


def _described(schema: Any) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in schema) or "none"


def _to_matrix(column: Any, dim: int) -> NDArray[np.float32]:
    # Flattened it lacks the rows that are null.
    flat = column.flatten().to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore"):  # What is too large for float32 becomes infinite: refused.
        present: NDArray[np.float32] = flat.astype(np.float32, copy=False).reshape(-1, dim)
    if column.null_count == 0:
        return present
    matrix = np.full((len(column), dim), np.nan, dtype=np.float32)
    matrix[np.asarray(column.is_valid())] = present
    return matrix


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """Open a Parquet file by ordinary reads: a share that goes away gives an error, no signal."""
    try:
        with storage_errors("read", file):
            try:
                with pq.ParquetFile(str(file), buffer_size=_BUFFER_BYTES) as parquet:
                    yield parquet
            except FileNotFoundError as error:
                raise InvalidRequest(
                    f"There is no file {str(file)!r}; an old index is named by what stands before "
                    "'.parquet'."
                ) from error
            except OSError as error:
                # Arrow uses OSError without a number for what it cannot decode.
                if error.errno is None:
                    raise _not_parquet(file, error) from error
                raise
    except (InvalidRequest, StorageError, MemoryError):
        raise
    except pa.ArrowException as error:
        raise _not_parquet(file, error) from error


def _not_parquet(file: Path, error: Exception) -> InvalidRequest:
    return InvalidRequest(
        f"{str(file)!r} cannot be read as Parquet ({error}); restore it from a copy."
    )
