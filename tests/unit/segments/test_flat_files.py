"""Flat files: as Faiss writes them, mapped, and never believed beyond what they hold."""

from __future__ import annotations

import gc
import os
from contextlib import suppress
from pathlib import Path

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from imagedex.core.errors import CorruptIndex
from imagedex.segments._faiss import FaissFile, header_of, write_flat
from imagedex.segments.durable import HashingFile
from imagedex.segments.mapped_file import MappedFile
from imagedex.testing.index_files import unit_vectors

_ROWS, _DIM = 50, 24
_VECTORS = unit_vectors(_ROWS, _DIM)


def _write(path: Path, blocks: list[NDArray[np.float32]], *, rows: int = _ROWS) -> None:
    with path.open("wb") as file:
        write_flat(HashingFile(file), blocks, rows=rows, dim=_DIM)


def test_a_file_is_byte_by_byte_what_faiss_writes(tmp_path: Path) -> None:
    _write(tmp_path / "ours", [_VECTORS[:7], _VECTORS[7:8], _VECTORS[8:]])
    index = faiss.IndexFlatIP(_DIM)
    index.add(_VECTORS)
    faiss.write_index(index, str(tmp_path / "theirs"))
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_a_file_that_is_opened_holds_what_was_written_and_outlives_its_name(tmp_path: Path) -> None:
    path = tmp_path / "flat"
    _write(path, [_VECTORS])
    file = FaissFile.open(path, rows=_ROWS, dim=_DIM)
    path.unlink()
    np.testing.assert_array_equal(file.vectors(), _VECTORS)
    rows = np.array([49, 0, 7, 7])
    np.testing.assert_array_equal(file.take(rows), _VECTORS[rows])
    scores, found = file.best(_VECTORS[:3], 1)
    assert found.tolist() == [[0], [1], [2]]
    np.testing.assert_allclose(scores, 1, atol=1e-5)


@pytest.mark.parametrize("place", range(len(header_of(rows=_ROWS, dim=_DIM))))
def test_no_changed_byte_of_the_header_is_believed(tmp_path: Path, place: int) -> None:
    path = tmp_path / "flat"
    _write(path, [_VECTORS])
    data = bytearray(path.read_bytes())
    data[place] ^= 0x80
    path.write_bytes(data)
    with pytest.raises(CorruptIndex, match=f"IndexFlatIP of {_ROWS} x {_DIM}"):
        FaissFile.open(path, rows=_ROWS, dim=_DIM)


@pytest.mark.parametrize("change", [-1, 1, -_DIM * 4])
def test_a_file_of_another_length_is_refused(tmp_path: Path, change: int) -> None:
    path = tmp_path / "flat"
    _write(path, [_VECTORS])
    data = path.read_bytes()
    path.write_bytes(data[:change] if change < 0 else data + bytes(change))
    with pytest.raises(CorruptIndex, match=f"has {len(data) + change} bytes, expected {len(data)}"):
        FaissFile.open(path, rows=_ROWS, dim=_DIM)


@pytest.mark.parametrize(
    ("blocks", "reason"),
    [
        ([_VECTORS[:49]], "49 vectors, expected 50"),
        ([_VECTORS, _VECTORS[:1]], "51 vectors, expected 50"),
        ([_VECTORS[:, :23]], "length 23, expected 24"),
    ],
)
def test_vectors_of_another_number_or_length_are_not_written(
    tmp_path: Path, blocks: list[NDArray[np.float32]], reason: str
) -> None:
    with pytest.raises(CorruptIndex, match=reason):
        _write(tmp_path / "flat", blocks)


_LARGE = 32 * 2**20


def _map(path: Path, *, large_bytes: int) -> MappedFile:
    numbers = np.arange(_LARGE // 4, dtype=np.float32)
    path.write_bytes(b"head" + numbers.tobytes())
    with path.open("rb") as file:
        return MappedFile(file, offset=4, rows=_LARGE // 4096, dim=1024, large_bytes=large_bytes)


def _resident(path: Path) -> int:
    """Return the bytes of a mapped file that are in this process's memory."""
    lines = Path("/proc/self/smaps").read_text().splitlines()
    (start,) = (number for number, line in enumerate(lines) if line.endswith(f" {path}"))
    rss = next(line for line in lines[start:] if line.startswith("Rss:"))
    return int(rss.split()[1]) * 1024


def test_rows_of_a_large_file_are_read_without_making_it_resident(tmp_path: Path) -> None:
    path = tmp_path / "large"
    mapped = _map(path, large_bytes=_LARGE)
    rows = np.random.default_rng(0).permutation(_LARGE // 4096)
    expected = rows[:, np.newaxis] * 1024 + np.arange(1024)
    np.testing.assert_array_equal(mapped.take(rows), expected)
    assert mapped.take(rows[:0]).shape == (0, 1024)
    assert _resident(path) == 0
    assert mapped.numbers.sum(dtype=np.float64) > 0
    assert _resident(path) > _LARGE / 2
    mapped.give_back()
    assert _resident(path) == 0
    assert mapped.numbers[5, 0] == 5 * 1024  # And is there again when it is wanted.


def test_a_file_that_is_not_large_stays_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "small"
    mapped = _map(path, large_bytes=_LARGE + 4)
    rows = np.arange(_LARGE // 4096)
    np.testing.assert_array_equal(mapped.take(rows)[:, 0], rows * 1024)
    mapped.give_back()
    assert _resident(path) >= _LARGE


def test_a_large_file_that_is_cut_while_it_is_open_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "large"
    mapped = _map(path, large_bytes=1)
    os.truncate(path, _LARGE // 2)
    with pytest.raises(OSError, match="could not be read whole"):
        mapped.take(np.array([_LARGE // 4096 - 1]))


def test_a_large_file_is_closed_with_the_last_that_uses_it(tmp_path: Path) -> None:
    path = tmp_path / "large"
    mapped = _map(path, large_bytes=1)
    path.unlink()
    assert mapped.take(np.array([7]))[0, 0] == 7 * 1024
    assert _open_files(path) == 2  # The map has one of its own.
    del mapped
    gc.collect()
    assert _open_files(path) == 0


def _open_files(path: Path) -> int:
    names = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # The one that lists them.
            names.append(str(descriptor.readlink()))
    return names.count(f"{path} (deleted)")


@pytest.mark.parametrize("rows_of_a_block", [1, 7, 49, 50, 1000])
def test_a_file_that_is_searched_in_pieces_is_searched_whole(
    tmp_path: Path, rows_of_a_block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imagedex.segments._faiss._ROWS_OF_A_BLOCK", rows_of_a_block)
    _write(tmp_path / "flat", [_VECTORS])
    file = FaissFile.open(tmp_path / "flat", rows=_ROWS, dim=_DIM)
    queries = unit_vectors(4, _DIM, seed=9)
    products = queries @ _VECTORS.T
    for count in (1, 10, _ROWS):
        scores, rows = file.best(queries, count)
        np.testing.assert_array_equal(rows, np.argsort(-products, axis=1)[:, :count])
        np.testing.assert_allclose(scores, -np.sort(-products, axis=1)[:, :count], atol=1e-6)
    assert [start for start, _ in file.blocks()] == list(range(0, _ROWS, rows_of_a_block))
