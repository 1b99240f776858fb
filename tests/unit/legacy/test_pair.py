"""What is taken as an old index, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from imagedex.core.errors import InvalidRequest, StorageError
from imagedex.legacy.pair import LegacyPair
from support.old_indexes import unit_vectors, write_faiss, write_pair, write_parquet

ROWS, DIM = 10, 16
PATHS = [f"/photos/{number}.jpg" for number in range(ROWS)]
VECTORS = unit_vectors(ROWS, DIM)


def all_vectors(pair: LegacyPair) -> NDArray[np.float32]:
    return pair.take(np.arange(pair.rows))


def refused(prefix: Path, match: str, **options: Any) -> None:
    with pytest.raises(InvalidRequest, match=match):
        LegacyPair.open(prefix, **options).check_vectors()


@pytest.mark.parametrize("path_column", ["path", "image_path", "file_path", "Bild"])
@pytest.mark.parametrize("vector_column", ["embedding", "vector", "CLIP"])
def test_columns_are_found_by_their_types(
    tmp_path: Path, path_column: str, vector_column: str
) -> None:
    write_pair(
        tmp_path / "old",
        PATHS,
        VECTORS,
        path_column=path_column,
        vector_column=vector_column,
        row=list(range(ROWS)),
    )
    pair = LegacyPair.open(tmp_path / "old")
    assert (pair.path_column, pair.vector_column) == (path_column, vector_column)
    assert (pair.rows, pair.dim, pair.paths()) == (ROWS, DIM, PATHS)
    assert pair.check_vectors().compared == ROWS
    np.testing.assert_array_equal(all_vectors(pair), VECTORS)


def test_usual_names_decide_among_columns_of_one_type(tmp_path: Path) -> None:
    write_pair(tmp_path / "old", PATHS, VECTORS, caption=["a dog"] * ROWS)
    assert LegacyPair.open(tmp_path / "old").path_column == "path"


def test_columns_that_cannot_be_told_apart_are_asked_for(tmp_path: Path) -> None:
    more = {"file_path": PATHS, "vector": pa.array(list(-VECTORS), pa.list_(pa.float32()))}
    write_parquet(tmp_path / "old.parquet", PATHS, VECTORS, **more)
    refused(tmp_path / "old", r"--path-column; its columns are path \(string\)")
    refused(tmp_path / "old", "--vector-column", path_column="path")
    pair = LegacyPair.open(tmp_path / "old", path_column="path", vector_column="vector")
    np.testing.assert_array_equal(all_vectors(pair), -VECTORS)
    refused(tmp_path / "old", "no column 'nope' of texts", path_column="nope")
    refused(tmp_path / "old", "no column 'path' of lists", path_column="path", vector_column="path")


@pytest.mark.parametrize(
    "vector_type",
    [
        pa.list_(pa.float32()),
        pa.list_(pa.float64()),
        pa.large_list(pa.float32()),
        pa.list_(pa.float32(), DIM),
        pa.list_(pa.float64(), DIM),
    ],
    ids=str,
)
def test_the_parquet_file_alone_is_enough(tmp_path: Path, vector_type: Any) -> None:
    write_parquet(tmp_path / "old.parquet", PATHS, VECTORS, vector_type=vector_type)
    pair = LegacyPair.open(tmp_path / "old")
    assert (pair.dim, pair.faiss_kind) == (DIM, None)
    np.testing.assert_array_equal(all_vectors(pair), VECTORS)
    # Also row by row, going back, and over the border of a batch.
    np.testing.assert_array_equal(pair.take(np.array([7])), VECTORS[[7]])
    np.testing.assert_array_equal(pair.take(np.array([2, 5])), VECTORS[[2, 5]])
    assert pair.take(np.array([], dtype=np.int64)).shape == (0, DIM)


def test_vectors_of_many_batches_are_found_by_row(tmp_path: Path) -> None:
    vectors = unit_vectors(10_000, 8)
    table = pa.table(
        {
            "path": [f"/{n}" for n in range(10_000)],
            "vector": pa.array(list(vectors), pa.list_(pa.float32())),
        }
    )
    pq.write_table(table, tmp_path / "old.parquet", row_group_size=3000)
    pair = LegacyPair.open(tmp_path / "old")
    for rows in ([0, 4095, 4096, 9999], [5000], [1, 2, 9000]):
        np.testing.assert_array_equal(pair.take(np.array(rows)), vectors[rows])


@pytest.mark.parametrize("kind", [faiss.IndexFlatIP, faiss.IndexFlatL2])
def test_the_faiss_file_alone_may_have_the_vectors(tmp_path: Path, kind: type) -> None:
    write_faiss(tmp_path / "old.faiss", VECTORS, kind)
    write_parquet(tmp_path / "old.parquet", PATHS)
    pair = LegacyPair.open(tmp_path / "old")
    assert (pair.dim, pair.vector_column) == (DIM, None)
    assert pair.check_vectors().compared == 0
    np.testing.assert_array_equal(all_vectors(pair), VECTORS)


def test_ids_that_are_rows_are_followed(tmp_path: Path) -> None:
    order = np.random.default_rng(1).permutation(ROWS)
    index = faiss.IndexIDMap(faiss.IndexFlatIP(DIM))
    index.add_with_ids(VECTORS[order], order)
    faiss.write_index(index, str(tmp_path / "old.faiss"))
    write_parquet(tmp_path / "old.parquet", PATHS, VECTORS)
    pair = LegacyPair.open(tmp_path / "old")
    assert pair.check_vectors().compared == ROWS
    np.testing.assert_array_equal(all_vectors(pair), VECTORS)


def test_ids_that_are_no_rows_are_refused(tmp_path: Path) -> None:
    index = faiss.IndexIDMap2(faiss.IndexFlatIP(DIM))
    index.add_with_ids(VECTORS, np.arange(ROWS) + 1)
    faiss.write_index(index, str(tmp_path / "old.faiss"))
    write_parquet(tmp_path / "old.parquet", PATHS, VECTORS)
    refused(tmp_path / "old", "not the row numbers 0 to 9")


@pytest.mark.parametrize("description", ["HNSW8", "SQ8", "IVF2,Flat", "PCA4,Flat"])
def test_other_kinds_of_faiss_index_are_refused_by_name(tmp_path: Path, description: str) -> None:
    index = faiss.index_factory(DIM, description, faiss.METRIC_INNER_PRODUCT)
    vectors = unit_vectors(200, DIM)
    index.train(vectors)
    index.add(vectors)
    faiss.write_index(index, str(tmp_path / "old.faiss"))
    write_parquet(tmp_path / "old.parquet", [f"/{n}" for n in range(200)], vectors)
    refused(tmp_path / "old", rf"{type(faiss.downcast_index(index)).__name__}, expected IndexFlat")


def test_files_of_different_lengths_are_refused(tmp_path: Path) -> None:
    write_faiss(tmp_path / "old.faiss", VECTORS[:-1])
    write_parquet(tmp_path / "old.parquet", PATHS, VECTORS)
    refused(tmp_path / "old", "has 9 vectors but .* has 10 rows")


def test_rows_that_do_not_match_are_refused_wherever_they_are(tmp_path: Path) -> None:
    shifted = VECTORS.copy()
    shifted[[8, 9]] = shifted[[9, 8]]
    write_faiss(tmp_path / "old.faiss", shifted)
    write_parquet(tmp_path / "old.parquet", PATHS, VECTORS)
    refused(tmp_path / "old", "in row 8 the Faiss file has another vector")


def test_vectors_of_different_lengths_in_the_two_files_are_refused(tmp_path: Path) -> None:
    write_faiss(tmp_path / "old.faiss", unit_vectors(ROWS, DIM + 1))
    write_parquet(tmp_path / "old.parquet", PATHS, VECTORS)
    refused(tmp_path / "old", "have 16 numbers but those in the Faiss file 17")


def test_the_two_files_may_differ_in_length_and_rounding(tmp_path: Path) -> None:
    write_faiss(tmp_path / "old.faiss", VECTORS)
    write_parquet(tmp_path / "old.parquet", PATHS, (VECTORS * 7).astype(np.float16))
    check = LegacyPair.open(tmp_path / "old").check_vectors()
    assert (check.compared, check.scaled) == (ROWS, 0)


def test_vectors_that_have_no_direction_or_another_length_are_counted(tmp_path: Path) -> None:
    vectors = VECTORS.copy()
    vectors[1] = 0
    vectors[2, 3] = np.nan
    vectors[4, 0] = np.inf
    vectors[5] *= 3
    write_pair(tmp_path / "old", PATHS, vectors)
    check = LegacyPair.open(tmp_path / "old").check_vectors()
    assert (check.unusable, check.scaled, check.compared) == (3, 1, ROWS)


def test_rows_without_a_vector_have_no_direction(tmp_path: Path) -> None:
    vectors: list[Any] = list(VECTORS)
    vectors[3] = None
    write_parquet(tmp_path / "old.parquet", PATHS, vectors)
    assert LegacyPair.open(tmp_path / "old").check_vectors().unusable == 1


def test_vectors_too_large_for_float32_have_no_direction(tmp_path: Path) -> None:
    vectors = VECTORS.astype(np.float64)
    vectors[0] = 1e200
    write_parquet(tmp_path / "old.parquet", PATHS, vectors, vector_type=pa.list_(pa.float64()))
    assert LegacyPair.open(tmp_path / "old").check_vectors().unusable == 1


def test_vectors_of_several_lengths_are_refused_with_the_row(tmp_path: Path) -> None:
    vectors = [vector.tolist() for vector in VECTORS]
    vectors[6] = vectors[6][:-1]
    write_parquet(tmp_path / "old.parquet", PATHS, vectors)
    refused(tmp_path / "old", "Row 6 of .* a vector of 15 numbers, expected 16")


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    refused(tmp_path / "old", r"no file .*old\.parquet")
    write_parquet(tmp_path / "old.parquet", PATHS)
    refused(tmp_path / "old", r"no column of them, and there is no file .*old\.faiss")
    pq.write_table(pa.table({"n": [1]}), tmp_path / "numbers.parquet")
    refused(tmp_path / "numbers", r"no column of texts.*n \(int64\)")
    write_parquet(tmp_path / "none.parquet", [], VECTORS[:0])
    refused(tmp_path / "none", "has no rows")


def test_damaged_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "old.parquet").write_bytes(b"PAR1 and no more")
    refused(tmp_path / "old", "cannot be read as Parquet")
    write_pair(tmp_path / "old", PATHS, VECTORS)
    whole = (tmp_path / "old.faiss").read_bytes()
    for data in (b"IxFI", whole[:-20], whole + b"\0"):
        (tmp_path / "old.faiss").write_bytes(data)
        refused(tmp_path / "old", r"The Faiss file .*old\.faiss' is damaged")
    for data in (b"", b"\xff" * 200):
        (tmp_path / "old.faiss").write_bytes(data)
        refused(tmp_path / "old", r"old\.faiss' holds an index of the kind")
    (tmp_path / "old.faiss").unlink()
    (tmp_path / "old.faiss").mkdir()
    with pytest.raises(StorageError, match=r"Could not read .*old\.faiss"):
        LegacyPair.open(tmp_path / "old")


@pytest.mark.parametrize("has_faiss", [True, False])
def test_the_best_rows_are_those_of_faiss(tmp_path: Path, has_faiss: bool) -> None:
    vectors = unit_vectors(5000, DIM)  # More than a batch.
    vectors[4] = np.nan
    names = [f"/{n}" for n in range(5000)]
    write_parquet(tmp_path / "old.parquet", names, vectors)
    if has_faiss:
        write_faiss(tmp_path / "old.faiss", vectors)
    queries = unit_vectors(7, DIM, seed=3)
    flat = faiss.IndexFlatIP(DIM)
    flat.add(np.nan_to_num(vectors))
    expected = flat.search(queries, 12)[1]
    np.testing.assert_array_equal(LegacyPair.open(tmp_path / "old").best(queries, 12), expected)


@pytest.mark.parametrize("has_faiss", [True, False])
def test_rows_without_a_score_are_none(tmp_path: Path, has_faiss: bool) -> None:
    vectors = np.full((3, DIM), np.nan, dtype=np.float32)
    vectors[1] = unit_vectors(1, DIM)
    write_parquet(tmp_path / "old.parquet", PATHS[:3], vectors)
    if has_faiss:
        write_faiss(tmp_path / "old.faiss", vectors)
    best = LegacyPair.open(tmp_path / "old").best(unit_vectors(2, DIM, seed=3), 3)
    assert best.tolist() == [[1, -1, -1], [1, -1, -1]]


@pytest.mark.parametrize("is_mapped", [True, False])
def test_no_damage_to_a_faiss_file_harms_the_process(tmp_path: Path, is_mapped: bool) -> None:
    """Faiss itself would end the process on some of these."""
    flat = faiss.IndexFlatIP(DIM)
    if is_mapped:
        mapped = faiss.IndexIDMap(flat)
        mapped.add_with_ids(VECTORS, np.arange(ROWS))
        faiss.write_index(mapped, str(tmp_path / "old.faiss"))
    else:
        flat.add(VECTORS)
        faiss.write_index(flat, str(tmp_path / "old.faiss"))
    write_parquet(tmp_path / "old.parquet", PATHS)
    whole = (tmp_path / "old.faiss").read_bytes()
    header = len(whole) - VECTORS.nbytes - (ROWS * 8 + 8 if is_mapped else 0)
    chance = np.random.default_rng(5)
    for place in [*range(header), *range(len(whole) - 90, len(whole))]:
        damaged = bytearray(whole)
        damaged[place] ^= int(chance.integers(1, 256))
        (tmp_path / "old.faiss").write_bytes(damaged)
        try:
            pair = LegacyPair.open(tmp_path / "old")
        except InvalidRequest:
            continue
        assert pair.take(np.arange(pair.rows)).shape == (ROWS, DIM)
        assert pair.best(VECTORS[:2], 3).shape == (2, 3)
