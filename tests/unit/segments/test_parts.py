"""Part files: what may be in them and how they are named."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from imagedex.core.errors import CorruptIndex
from imagedex.segments import DirectoryIndexFiles, Part, _parquet
from imagedex.testing.index_files import make_facts, make_part, unit_vectors

_A, _B = unit_vectors(2, 6)
_FACTS = (make_facts("/a"), make_facts("/b"))


def test_a_part_is_named_by_job_chunk_and_fence(tmp_path: Path) -> None:
    files = DirectoryIndexFiles(tmp_path)
    name = files.write_part("idx_20251114_123456_7f3a", 12, 3, make_part({"/ä": _A}, dim=6))
    assert re.fullmatch(r"parts/idx_20251114_123456_7f3a/000012-3-[0-9a-f]{8}\.parquet", name)
    assert [one.image_path for one in files.read_part_facts(name)] == ["/ä"]
    assert list((tmp_path / name).parent.iterdir()) == [tmp_path / name]


def test_a_chunk_that_runs_again_leaves_what_its_other_run_wrote(tmp_path: Path) -> None:
    files = DirectoryIndexFiles(tmp_path)
    first = files.write_part("job", 0, 1, make_part({"/a": _A}, dim=6))
    second = files.write_part("job", 0, 1, make_part({"/b": _B}, dim=6))
    assert [one.image_path for one in files.read_part_facts(first)] == ["/a"]
    assert [one.image_path for one in files.read_part_facts(second)] == ["/b"]
    older = f"{first.rpartition('-')[0]}.parquet"  # As it was named before.
    (tmp_path / first).rename(tmp_path / older)
    assert [one.image_path for one in files.read_part_facts(older)] == ["/a"]
    files.remove_parts("job")
    assert not list(tmp_path.rglob("*.parquet"))


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        (Part(_FACTS, np.array([_A]), ""), "2 images but 1 vectors"),
        (Part(_FACTS, np.array([_A, _B]).astype(np.float64), ""), "float64"),
        (Part(_FACTS[:1], _A, ""), r"shape \(6,\)"),
        (Part(_FACTS, np.zeros((2, 0), dtype=np.float32), ""), r"shape \(2, 0\)"),
        (Part(_FACTS, np.array([_A, _B * np.float32(1.01)]), ""), "'/b' has length 1.0"),
        (Part(_FACTS, np.array([_A * 0, _B]), ""), "'/a' has length 0"),
        (Part(_FACTS, np.array([_A, _B * np.float32(np.nan)]), ""), "'/b' has length nan"),
        (Part(_FACTS, np.array([_A * np.float32(np.inf), _B]), ""), "'/a' has length"),
        (Part((_FACTS[0], _FACTS[0]), np.array([_A, _B]), ""), "given twice"),
        (Part((make_facts("/\ud800"),), np.array([_A]), ""), "surrogates"),
    ],
)
def test_what_cannot_be_searched_later_is_not_stored(
    tmp_path: Path, part: Part, reason: str
) -> None:
    with np.errstate(invalid="ignore"), pytest.raises(ValueError, match=reason):
        DirectoryIndexFiles(tmp_path).write_part("job", 0, 1, part)
    assert not list(tmp_path.rglob("*.parquet*"))


@pytest.mark.parametrize("job_id", ["", "..", "a/b", "a\0", "x" * 101])
def test_a_job_id_that_could_leave_the_folder_is_refused(tmp_path: Path, job_id: str) -> None:
    with pytest.raises(ValueError, match="Job id"):
        DirectoryIndexFiles(tmp_path).write_part(job_id, 0, 1, make_part({"/a": _A}, dim=6))


@pytest.mark.parametrize("keep", [0, 3, 40, 400, -1])
def test_a_part_that_was_cut_is_found_out(tmp_path: Path, keep: int) -> None:
    files = DirectoryIndexFiles(tmp_path)
    name = files.write_part("job", 0, 1, make_part({"/a": _A}, dim=6))
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[:keep])
    with pytest.raises(CorruptIndex, match=r"000000-1-[0-9a-f]{8}\.parquet"):
        files.read_part_facts(name)


def test_single_rows_are_read_from_whichever_row_group_holds_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_parquet, "_ROWS_PER_GROUP", 4)
    files = DirectoryIndexFiles(tmp_path)
    vectors = unit_vectors(11, 6)
    name = files.write_part(
        "job", 0, 1, make_part({f"/{row}": v for row, v in enumerate(vectors)}, dim=6)
    )
    wanted = [10, 0, 3, 4, 0]
    part = files.read_rows(name, wanted)
    assert [facts.image_path for facts in part.facts] == [f"/{row}" for row in wanted]
    assert (part.vectors == vectors[wanted]).all()
    assert files.read_rows(name, []).vectors.shape == (0, 6)
    for row in (-1, 11):
        with pytest.raises(CorruptIndex, match=f"row {row}|not among"):
            files.read_rows(name, [row])
    with pytest.raises(ValueError, match="does not name a part"):
        files.read_rows("../other.parquet", [0])


def test_the_parts_of_a_job_tell_how_their_chunks_ended(tmp_path: Path) -> None:
    files = DirectoryIndexFiles(tmp_path)
    assert files.finished_parts("job") == []
    part = make_part({"/a": unit_vectors(1, 3)[0]}, dim=3)
    old = files.write_part("job", 0, 2, part, "as it was")
    new = files.write_part("job", 0, 12, part, "as it is")
    other = files.write_part("job", 3, 1, part)
    files.write_part("another", 0, 1, part, "not mine")
    found = files.finished_parts("job")
    assert [(p.name, p.chunk, p.fence, p.outcome) for p in found] == [
        (new, 0, 12, "as it is"),
        (old, 0, 2, "as it was"),
        (other, 3, 1, ""),
    ]
    assert {p.fingerprint for p in found} == {part.fingerprint}


def test_what_is_no_whole_part_is_not_among_the_finished_ones(tmp_path: Path) -> None:
    files = DirectoryIndexFiles(tmp_path)
    part = make_part({"/a": unit_vectors(1, 3)[0]}, dim=3)
    whole = files.write_part("job", 0, 1, part)
    cut = tmp_path / files.write_part("job", 1, 1, part)
    cut.write_bytes(cut.read_bytes()[:-5])
    (tmp_path / "parts" / "job" / "000002-1-00000000.parquet.0123.tmp").write_bytes(b"half")
    (tmp_path / "parts" / "job" / "merge-3").mkdir()
    assert [found.name for found in files.finished_parts("job")] == [whole]
