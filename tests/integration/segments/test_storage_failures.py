"""Storage that fails in the middle of a commit: the old generation stands, and work goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagedex.core.errors import StorageError
from imagedex.segments import (
    DirectoryIndexFiles,
    examine_files,
    mend_faiss_files,
    mend_pointer,
    publish_lock,
)
from imagedex.testing.index_files import (
    assert_holds,
    make_part,
    publish_images,
    unit_vectors,
)
from support.committing import (
    DIM,
    StartProcess,
    commit_step,
    commit_steps,
    commit_with_file_size_limits,
    fail_at_each_file_operation,
    fail_while_merging,
    images_after,
    step_of,
)
from support.structures import faiss_of, files_with_faiss


def test_each_single_file_operation_of_a_commit_may_fail(
    tmp_path: Path, start_process: StartProcess
) -> None:
    template = tmp_path / "template"
    for step in (1, 2):
        commit_step(files_with_faiss(template), step)
    _, reports = start_process(fail_at_each_file_operation, template, tmp_path / "scratch")
    assert reports.recv() > 20


def test_each_single_file_operation_of_a_merge_may_fail(
    tmp_path: Path, start_process: StartProcess
) -> None:
    template = tmp_path / "template"
    for step in (1, 2, 3):
        commit_step(files_with_faiss(template), step)
    _, reports = start_process(fail_while_merging, template, tmp_path / "scratch")
    assert reports.recv() > 20


def test_files_that_may_not_grow_fail_the_commit_and_no_more(
    tmp_path: Path, start_process: StartProcess
) -> None:
    _, reports = start_process(commit_with_file_size_limits, tmp_path / "index")
    failures = reports.recv()
    files = DirectoryIndexFiles(tmp_path / "index")
    step = step_of(files.current())
    assert failures >= 5
    assert step >= 5
    assert_holds(files, images_after(step), dim=DIM)


def test_a_full_disk_fails_the_commit_and_space_lets_it_go_on(small_disk: Path) -> None:
    files = files_with_faiss(small_disk / "index")
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(100_000))
    with pytest.raises(StorageError, match="free some space"):
        commit_steps(files, 100)
    step = step_of(files.current())
    assert 0 < step < 100
    assert_holds(files, images_after(step), dim=DIM)
    images = {f"/{i}": vector for i, vector in enumerate(unit_vectors(2000, DIM))}
    with pytest.raises(StorageError, match="free some space"):
        files.write_part("job", 0, 1, make_part(images, dim=DIM))
    assert not list(small_disk.rglob("*.tmp"))
    ballast.unlink()
    commit_step(files, step + 1)
    assert_holds(files, images_after(step + 1), dim=DIM)


def test_on_a_full_disk_mending_fails_and_leaves_what_there_was(small_disk: Path) -> None:
    files = files_with_faiss(small_disk / "index")
    commit_steps(files, 2)
    images = {f"/{i}": vector for i, vector in enumerate(unit_vectors(1000, DIM))}
    publish_images(files, images)
    before = files.current()
    assert before is not None
    big = before.segments[-1]
    (files.index_prefix / faiss_of(big).name).unlink()
    ballast = small_disk / "ballast"
    with pytest.raises(OSError, match="No space"):
        ballast.write_bytes(bytes(256_000))
    with publish_lock(files.index_prefix).held():
        with pytest.raises(StorageError, match="free some space"):
            mend_faiss_files(files.index_prefix, before, {big.number})
        (files.index_prefix / "CURRENT").unlink()
        assert not list(small_disk.rglob("*.tmp"))
        ballast.unlink()
        assert mend_pointer(files.index_prefix, known_generation=0).manifest == before
        assert mend_faiss_files(files.index_prefix, before, {big.number}).manifest == before
    assert files.current() == before
    assert examine_files(files.index_prefix).findings == ()
    assert_holds(files, images_after(2) | images, dim=DIM)
