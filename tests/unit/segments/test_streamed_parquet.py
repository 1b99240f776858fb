"""Parquet files are written as their rows come, whatever the size of what comes."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from imagedex.segments._parquet import (
    ImageTable,
    read_blocks,
    read_images,
    read_tables,
    read_vectors,
    write_tables,
)
from imagedex.segments.durable import HashingFile
from imagedex.testing.index_files import make_part, unit_vectors

_DIM = 4


def _table(first: int, rows: int) -> ImageTable:
    vectors = unit_vectors(rows, _DIM, seed=first)
    names = (f"/{number:06d}" for number in range(first, first + rows))
    return ImageTable.from_part(make_part(dict(zip(names, vectors, strict=True)), dim=_DIM))


def _tables(sizes: list[int]) -> Iterator[ImageTable]:
    first = 0
    for size in sizes:
        yield _table(first, size)
        first += size


@pytest.mark.parametrize("sizes", [[1], [1] * 50, [4095, 1, 1], [10_000], [3000] * 5, [0, 7, 0]])
def test_rows_come_out_in_order_and_in_whole_groups(tmp_path: Path, sizes: list[int]) -> None:
    path = tmp_path / "images"
    with path.open("wb") as file:
        write_tables(HashingFile(file), _tables(sizes), {"segment": "1"}, dim=_DIM)
    whole = read_images(path)
    assert whole.image_paths() == [f"/{number:06d}" for number in range(sum(sizes))]
    expected = np.concatenate([table.vectors() for table in _tables(sizes)])
    np.testing.assert_array_equal(whole.vectors(), expected)
    metadata = pq.read_metadata(path)
    groups = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    assert all(rows == 4096 for rows in groups[:-1])
    assert metadata.metadata[b"imagedex.segment"] == b"1"


def test_what_is_read_in_pieces_is_what_is_read_at_once(tmp_path: Path) -> None:
    path = tmp_path / "images"
    with path.open("wb") as file:
        write_tables(HashingFile(file), _tables([20_000]), {}, dim=_DIM)
    pieces = list(read_tables(path))
    assert len(pieces) > 1
    joined = ImageTable.concatenate(pieces)
    assert joined.image_paths() == read_images(path).image_paths()


@pytest.mark.parametrize("read", [read_tables, read_vectors, read_blocks])
def test_of_a_large_file_no_more_than_a_piece_is_in_memory(
    tmp_path: Path, read: Callable[[Path], Iterator[object]]
) -> None:
    path = tmp_path / "images"
    dim = 64
    rows = 4096 * 16
    names = (f"/{number:06d}" for number in range(rows))
    vectors = unit_vectors(rows, dim)
    part = make_part(dict(zip(names, vectors, strict=True)), dim=dim)
    with path.open("wb") as file:
        write_tables(HashingFile(file), [ImageTable.from_part(part)], {}, dim=dim)
    del part
    before = pa.total_allocated_bytes()
    most = max(pa.total_allocated_bytes() for _ in read(path)) - before
    assert most < vectors.nbytes / 2


def test_a_table_is_let_go_once_it_is_written(tmp_path: Path) -> None:
    written: list[weakref.ref[ImageTable]] = []

    def tables() -> Iterator[ImageTable]:
        for number in range(10):
            gc.collect()
            assert sum(reference() is not None for reference in written) <= 1
            table = _table(number * 4096, 4096)
            written.append(weakref.ref(table))
            yield table
            del table

    with (tmp_path / "images").open("wb") as file:
        write_tables(HashingFile(file), tables(), {}, dim=_DIM)
    assert len(written) == 10
