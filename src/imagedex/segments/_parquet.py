"""Parquet files of images and of tombstones; the only module that imports Arrow.

A file of images holds all that is worth keeping of them, so that an index can be made again
from these files alone. Its columns are ``image_path``, ``content_hash``, ``size`` (bytes),
``mtime_ns``, ``width``, ``height``, ``format`` and ``vector`` (a list of ``dim`` float32). Its
metadata has ``imagedex.version`` and what the writer adds, such as the model's fingerprint.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from imagedex.core.errors import CorruptIndex, InvalidRequest, StorageError
from imagedex.core.images import FileStamp, ImageFacts
from imagedex.segments.durable import HashingFile, storage_errors
from imagedex.segments.globs import path_pattern
from imagedex.segments.records import Part

VERSION = "1"

_METADATA_PREFIX = "imagedex."
_ROWS_PER_GROUP = 4_096  # A group is read whole for the sake of one of its rows.
_ROWS_PER_BATCH = 8_192
_SAMPLED_GROUPS = 8
_FACT_FIELDS = (
    pa.field("image_path", pa.string(), nullable=False),
    pa.field("content_hash", pa.string(), nullable=False),
    pa.field("size", pa.int64(), nullable=False),
    pa.field("mtime_ns", pa.int64(), nullable=False),
    pa.field("width", pa.int32(), nullable=False),
    pa.field("height", pa.int32(), nullable=False),
    pa.field("format", pa.string(), nullable=False),
)
_FACT_NAMES = [field.name for field in _FACT_FIELDS]
_TOMBSTONE_SCHEMA = pa.schema(
    [
        pa.field("segment", pa.int64(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
    ]
)

# A glob takes 0.5 microseconds a path, a hostile one a hundred times as long (RE2's time grows with
# the pattern as well). Sixteen usual ones pass.
_PATHS_AT_ONCE = 20_000
_GLOB_SECONDS = 1.0
_GLOB_SECONDS_PER_PATH = 10e-6


class PathColumn:
    """The image paths of a segment in row order, kept in one block rather than as objects."""

    def __init__(self, array: Any) -> None:
        self._array = array

    def __len__(self) -> int:
        return len(self._array)

    def take(self, rows: NDArray[np.int64]) -> list[str]:
        """Return the paths of these rows, in the order of ``rows``."""
        paths: list[str] = self._array.take(pa.array(rows)).to_pylist()
        return paths

    def below(self, directory: str) -> NDArray[np.bool_]:
        """Mark what lies below a directory, or is the file of that name: shape (rows,)."""
        directory = directory.rstrip("/")
        lies_below = pc.starts_with(self._array, directory + "/")
        is_it = pc.equal(self._array, directory)
        marked: NDArray[np.bool_] = pc.or_(lies_below, is_it).to_numpy(zero_copy_only=False)
        return marked

    def matching(self, globs: Collection[str], rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Mark those of ``rows`` whose path matches one of the globs: shape (len(rows),).

        Raises InvalidRequest for a glob that cannot be understood, and for those that take
        a hundred times as long as usual ones.
        """
        marked = np.zeros(len(rows), dtype=bool)
        until = time.thread_time() + _GLOB_SECONDS + _GLOB_SECONDS_PER_PATH * len(rows)
        for start in range(0, len(rows), _PATHS_AT_ONCE):
            piece = slice(start, start + _PATHS_AT_ONCE)
            paths = self._array.take(pa.array(rows[piece]))
            for glob in globs:
                marked[piece] |= _matching(paths, glob)
                if time.thread_time() > until:
                    raise InvalidRequest(
                        "The globs take too long to be held against the paths; use fewer, or "
                        "fewer '?' and '[' after a '*'."
                    )
        return marked


def _matching(paths: Any, glob: str) -> NDArray[np.bool_]:
    try:
        found = pc.match_substring_regex(paths, path_pattern(glob))
    except pa.ArrowInvalid as error:
        raise InvalidRequest(
            f"The glob {glob[:80]!r} cannot be understood ({error}); correct the set in its "
            "brackets, or write it shorter."
        ) from error
    marked: NDArray[np.bool_] = found.to_numpy(zero_copy_only=False)
    return marked


class FactColumns:
    """Numbers that a file of images records, each column read when it is asked for first.

    The file stays open, so that it may be deleted meanwhile. Safe to call from several threads.
    """

    def __init__(self, path: Path) -> None:
        """Open the file. Raises CorruptIndex, StorageError."""
        self._path = path
        self._lock = threading.Lock()
        self._columns: dict[str, NDArray[np.int64]] = {}
        with _reading(path):
            self._file = pa.OSFile(str(path))

    def column(self, name: str) -> NDArray[np.int64]:
        """Return ``size``, ``mtime_ns``, ``width`` or ``height``: integers, shape (rows,).

        Raises CorruptIndex, StorageError.
        """
        with self._lock:
            column = self._columns.get(name)
            if column is None:
                with _reading(self._path):
                    file = pq.ParquetFile(self._file, page_checksum_verification=True)
                    column = file.read(columns=[name], use_threads=False).column(name).to_numpy()
                self._columns[name] = column
            return column


class ImageTable:
    """Facts and vectors of images, row by row, in memory. Immutable."""

    def __init__(self, table: Any) -> None:
        self._table = table

    @classmethod
    def from_part(cls, part: Part) -> ImageTable:
        """Make a table of a part whose shapes and types are right."""
        count, dim = part.vectors.shape
        facts = part.facts
        columns = [
            [fact.image_path for fact in facts],
            [fact.content_hash for fact in facts],
            [fact.stamp.size for fact in facts],
            [fact.stamp.mtime_ns for fact in facts],
            [fact.width for fact in facts],
            [fact.height for fact in facts],
            [fact.format for fact in facts],
        ]
        arrays = [
            pa.array(values, field.type)
            for values, field in zip(columns, _FACT_FIELDS, strict=True)
        ]
        flat = pa.array(np.ascontiguousarray(part.vectors).reshape(count * dim))
        schema = _image_schema(dim)
        arrays.append(pa.FixedSizeListArray.from_arrays(flat, type=schema.field("vector").type))
        return cls(pa.Table.from_arrays(arrays, schema=schema))

    @classmethod
    def concatenate(cls, tables: Sequence[ImageTable]) -> ImageTable:
        """Join tables of the same dim, in order."""
        joined = pa.concat_tables([table._table for table in tables])  # noqa: SLF001 - its own.
        return cls(joined.combine_chunks())

    def only(self, rows: NDArray[np.bool_]) -> ImageTable:
        """Return the rows that are marked; shape (rows,)."""
        return ImageTable(self._table.filter(pa.array(rows)))

    @property
    def rows(self) -> int:
        """The number of images."""
        rows: int = self._table.num_rows
        return rows

    @property
    def dim(self) -> int:
        """The length of the vectors."""
        dim: int = self._table.schema.field("vector").type.list_size
        return dim

    def image_paths(self) -> list[str]:
        """Return the image paths, in row order."""
        paths: list[str] = self._table.column("image_path").to_pylist()
        return paths

    def vectors(self) -> NDArray[np.float32]:
        """Return the vectors: float32, shape (rows, dim), read-only, a view where possible."""
        flat = self._table.column("vector").combine_chunks()
        array: NDArray[np.float32] = np.asarray(flat.flatten()).reshape(self.rows, self.dim)
        return array

    def write_to(self, file: HashingFile, metadata: Mapping[str, str]) -> None:
        """Write a Parquet file with this metadata."""
        write_tables(file, [self], metadata, dim=self.dim)


def write_tables(
    file: HashingFile, tables: Iterable[ImageTable], metadata: Mapping[str, str], *, dim: int
) -> None:
    """Write a Parquet file with the rows of all tables, in order, as they come.

    No more than the rows of a group and one table are in memory.
    """
    described = {_METADATA_PREFIX + key: value for key, value in metadata.items()}
    described[_METADATA_PREFIX + "version"] = VERSION
    schema = _image_schema(dim).with_metadata(described)
    # Vectors do not compress, and nobody asks for the least and greatest of them.
    with pq.ParquetWriter(
        file,
        schema,
        compression=dict.fromkeys(_FACT_NAMES, "zstd"),
        use_dictionary=["format"],
        write_statistics=_FACT_NAMES,
        write_page_checksum=True,
    ) as writer:
        waiting = schema.empty_table()
        for table in tables:
            more = table._table.replace_schema_metadata(described)  # noqa: SLF001 - its own.
            waiting = pa.concat_tables([waiting, more])
            whole = waiting.num_rows - waiting.num_rows % _ROWS_PER_GROUP
            if whole:
                writer.write_table(waiting.slice(0, whole), row_group_size=_ROWS_PER_GROUP)
                waiting = waiting.slice(whole)
        if waiting.num_rows:
            writer.write_table(waiting, row_group_size=_ROWS_PER_GROUP)


def read_images(path: Path) -> ImageTable:
    """Return all that a file of images holds. Raises CorruptIndex, StorageError."""
    with _reading(path), _image_file(path) as file:
        return ImageTable(file.read(use_threads=False))


def read_made_by(path: Path) -> tuple[ImageTable, str]:
    """Return all that a file of images holds, and what ``read_fingerprint`` does.

    Raises CorruptIndex, StorageError.
    """
    with _reading(path), _image_file(path) as file:
        return ImageTable(file.read(use_threads=False)), _fingerprint_in(file)


def read_tables(path: Path) -> Iterator[ImageTable]:
    """Yield what a file of images holds in row order, some thousand rows at a time.

    Raises CorruptIndex, StorageError.
    """
    with _reading(path), _image_file(path) as file:
        for batch in file.iter_batches(_ROWS_PER_BATCH, use_threads=False):
            yield ImageTable(pa.Table.from_batches([batch]))


def read_vectors(path: Path) -> Iterator[NDArray[np.float32]]:
    """Yield the vectors of a file in row order, some thousand rows at a time.

    Raises CorruptIndex, StorageError.
    """
    with _reading(path), _image_file(path) as file:
        for batch in file.iter_batches(_ROWS_PER_BATCH, columns=["vector"], use_threads=False):
            yield ImageTable(pa.Table.from_batches([batch])).vectors()


def read_paths(path: Path) -> PathColumn:
    """Return the image paths of a file of images. Raises CorruptIndex, StorageError."""
    with _reading(path), _image_file(path) as file:
        table = file.read(columns=["image_path"], use_threads=False)
        return PathColumn(table.column("image_path").combine_chunks())


def read_facts(path: Path) -> Iterator[ImageFacts]:
    """Yield what a file records of its images, in row order. Raises CorruptIndex, StorageError."""
    with _reading(path), _image_file(path) as file:
        for batch in file.iter_batches(_ROWS_PER_BATCH, columns=_FACT_NAMES, use_threads=False):
            yield from _facts_of(batch)


def read_blocks(path: Path) -> Iterator[tuple[list[ImageFacts], NDArray[np.float32]]]:
    """Yield facts and vectors of a file in row order, some thousand rows at a time.

    Raises CorruptIndex, StorageError.
    """
    with _reading(path), _image_file(path) as file:
        for batch in file.iter_batches(_ROWS_PER_BATCH, use_threads=False):
            vectors = batch.column("vector").flatten().to_numpy(zero_copy_only=False)
            yield list(_facts_of(batch)), vectors.reshape(batch.num_rows, -1)


def _facts_of(batch: Any) -> Iterator[ImageFacts]:
    """Yield the facts in a table or record batch."""
    columns = (batch.column(name).to_pylist() for name in _FACT_NAMES)
    for image_path, content_hash, size, mtime_ns, width, height, kind in zip(*columns, strict=True):
        yield ImageFacts(
            image_path=image_path,
            content_hash=content_hash,
            stamp=FileStamp(size=size, mtime_ns=mtime_ns),
            width=width,
            height=height,
            format=kind,
        )


def sample_vectors(path: Path, count: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the numbers and the vectors of about ``count`` rows, from the first to the last.

    Reads some row groups of the file, one at a time. Raises CorruptIndex, StorageError.
    """
    with _reading(path), _image_file(path) as file:
        starts = np.cumsum(
            [0] + [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        )
        chosen = np.unique(
            np.linspace(0, file.num_row_groups - 1, num=_SAMPLED_GROUPS).astype(np.int64)
        )
        all_rows, all_vectors = [], []
        for group in chosen.tolist():
            images = ImageTable(
                file.read_row_group(group, columns=[*_FACT_NAMES, "vector"], use_threads=False)
            )
            places = np.unique(
                np.linspace(0, images.rows - 1, num=-(-count // len(chosen))).astype(np.int64)
            )
            all_rows.append(places + int(starts[group]))
            all_vectors.append(images.vectors()[places])
        return np.concatenate(all_rows), np.concatenate(all_vectors)


def read_rows(path: Path, rows: Sequence[int]) -> Part:
    """Return some rows, in the order of ``rows``, reading only the row groups that hold them.

    Raises CorruptIndex, also for a row that the file does not have, and StorageError.
    """
    with _reading(path), _image_file(path) as file:
        counts = [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)]
        ends = np.cumsum(np.array(counts, dtype=np.int64))
        wanted = np.array(rows, dtype=np.int64)
        groups = np.searchsorted(ends, wanted, side="right")
        if len(wanted) and (wanted.min() < 0 or groups.max() == len(ends)):
            raise ValueError(f"row {max(rows)} is not among its {file.metadata.num_rows} rows")
        facts: dict[int, ImageFacts] = {}
        vectors: dict[int, NDArray[np.float32]] = {}
        for group in np.unique(groups):
            table = file.read_row_group(int(group), use_threads=False)
            inside = wanted[groups == group]
            taken = table.take(pa.array(inside - (ends[group] - counts[group])))
            facts.update(zip(inside.tolist(), _facts_of(taken), strict=True))
            vectors.update(zip(inside.tolist(), ImageTable(taken).vectors(), strict=True))
        dim = file.schema_arrow.field("vector").type.list_size
        fingerprint = _fingerprint_in(file)
    stacked = np.array([vectors[row] for row in rows], dtype=np.float32).reshape(len(rows), dim)
    return Part(tuple(facts[row] for row in rows), stacked, fingerprint)


def read_fingerprint(path: Path) -> str:
    """Return which model made the vectors of a file; empty where it does not say.

    Raises CorruptIndex, StorageError.
    """
    with _reading(path), _image_file(path) as file:
        return _fingerprint_in(file)


def read_metadata(path: Path) -> dict[str, str]:
    """Return what the writer of a file of images has said of it, by its own keys.

    Raises CorruptIndex, StorageError.
    """
    with _reading(path), _image_file(path) as file:
        metadata = file.schema_arrow.metadata or {}
        return {
            key.decode().removeprefix(_METADATA_PREFIX): value.decode()
            for key, value in metadata.items()
            if key.startswith(_METADATA_PREFIX.encode())
        }


def _fingerprint_in(file: Any) -> str:
    metadata = file.schema_arrow.metadata or {}
    return str(metadata.get(f"{_METADATA_PREFIX}fingerprint".encode(), b"").decode())


def write_tombstones(
    file: HashingFile, segments: NDArray[np.int64], rows: NDArray[np.int64]
) -> None:
    """Write a file of tombstones: row ``rows[i]`` of segment ``segments[i]`` counts no longer."""
    table = pa.Table.from_arrays([pa.array(segments), pa.array(rows)], schema=_TOMBSTONE_SCHEMA)
    pq.write_table(
        table.replace_schema_metadata({_METADATA_PREFIX + "version": VERSION}),
        file,
        compression="zstd",
        write_page_checksum=True,
    )


def read_tombstones(path: Path) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return segments and rows of a file of tombstones. Raises CorruptIndex, StorageError."""
    with _reading(path), _open(path) as file:
        _require_schema(file, _TOMBSTONE_SCHEMA)
        table = file.read(use_threads=False)
        return (
            table.column("segment").to_numpy().astype(np.int64),
            table.column("row").to_numpy().astype(np.int64),
        )


def _image_schema(dim: int) -> Any:
    element = pa.field("element", pa.float32(), nullable=False)
    vector = pa.field("vector", pa.list_(element, dim), nullable=False)
    return pa.schema([*_FACT_FIELDS, vector])


def _open(path: Path) -> Any:
    # Read by ordinary calls: a share that goes away gives an error, where a memory map would
    # give SIGBUS. Not ahead of what is asked for: all that was read stays until the end then.
    return pq.ParquetFile(str(path), page_checksum_verification=True, pre_buffer=False)


def _image_file(path: Path) -> Any:
    file = _open(path)
    fields = file.schema_arrow
    vector = fields.field("vector").type if "vector" in fields.names else None
    if vector is None or not pa.types.is_fixed_size_list(vector):
        raise ValueError("it has no column 'vector' of lists of one length")
    _require_schema(file, _image_schema(vector.list_size))
    return file


def _require_schema(file: Any, expected: Any) -> None:
    found = file.schema_arrow
    version = (found.metadata or {}).get(f"{_METADATA_PREFIX}version".encode())
    if version != VERSION.encode():
        raise ValueError(f"it has version {version!r}, expected {VERSION!r}")
    if not found.equals(expected):
        raise ValueError(f"its columns are {found.names}, not of the types expected")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        with storage_errors("read", path):
            try:
                yield
            except FileNotFoundError as error:
                raise _corrupt(path, "it is missing") from error
            except OSError as error:
                # Arrow uses OSError without a number for what it cannot decode.
                if error.errno is None:
                    raise _corrupt(path, str(error)) from error
                raise
    except (StorageError, MemoryError):
        raise
    except (pa.ArrowException, ValueError, KeyError) as error:
        raise _corrupt(path, str(error)) from error


def _corrupt(path: Path, reason: str) -> CorruptIndex:
    return CorruptIndex(
        f"The Parquet file {str(path)!r} is damaged ({reason}); restore it from a copy of the "
        "index, or index its images again."
    )
