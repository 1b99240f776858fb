"""An owner that is frozen, replaced, and wakes up: what it was about to do counts no more."""

from __future__ import annotations

import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from imagedex.segments import (
    DirectoryIndexFiles,
    examine_files,
    layout,
    publish_lock,
    roll_back,
)
from imagedex.testing.index_files import assert_holds, make_part, unit_vectors
from support.committing import (
    DIM,
    StartProcess,
    commit_step,
    freeze_at_each_file_operation,
    images_after,
    merge_all,
    step_of,
)
from support.waiting import wait_until


def _is_stopped(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False  # It was done, and has ended.
    return state == "T"


def _wait_until_frozen_or_done(pid: int, reports: Connection) -> None:
    wait_until(lambda: _is_stopped(pid) or reports.poll())


def _let_go_on(pid: int, reports: Connection) -> None:
    if not reports.poll():
        os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("steps", [1, 5])
def test_an_owner_frozen_before_any_file_operation_publishes_and_deletes_nothing_afterwards(
    tmp_path: Path, start_process: StartProcess, steps: int
) -> None:
    template = tmp_path / "template"
    for step in (1, 2, 3):
        commit_step(DirectoryIndexFiles(template), step)
    _, reports = start_process(freeze_at_each_file_operation, template, tmp_path / "scratch")
    pid = reports.recv()
    outcomes = set()
    number = 0
    was_frozen = True
    while was_frozen:
        number += 1
        index_prefix = tmp_path / "scratch" / str(number)
        _wait_until_frozen_or_done(pid, reports)

        files = DirectoryIndexFiles(index_prefix, term=lambda: 2)
        sealed = files.seal(2)
        assert sealed is not None
        taken_over = step_of(sealed)
        assert taken_over in (3, 4)
        for fence in range(3, 3 + steps):
            before = files.current()
            manifest = commit_step(files, step_of(before) + 1, fence=fence)
            files.sweep(keep_jobs=["part"], fence=fence)
        part = files.write_part("kept", 0, 9, make_part({"/x": unit_vectors(1, DIM)[0]}, dim=DIM))
        left = set(index_prefix.rglob("*-9*"))

        _let_go_on(pid, reports)
        step, was_frozen = reports.recv()
        # It is told so, unless all was done, or published, before it was replaced.
        assert step == 0 or taken_over == 4
        assert files.current() == manifest
        assert DirectoryIndexFiles(index_prefix).current() == manifest
        assert left == set(index_prefix.rglob("*-9*"))
        outcomes.add((step, taken_over))
        # The new owner goes on, and finds nothing that it would stumble upon.
        files.heal()
        files.remove_part(part)
        merge_all(files, fence=9)
        commit_step(files, taken_over + steps + 1, fence=9)
        files.sweep(keep_jobs=[], fence=9)
        assert_holds(files, images_after(taken_over + steps + 1), dim=DIM)
        kinds = {finding.kind for finding in examine_files(index_prefix).findings}
        assert not kinds, kinds
    # Refused, published before it was replaced but not told so, and all done.
    assert outcomes == {(0, 3), (0, 4), (4, 4)} or outcomes == {(0, 3), (4, 4)}
    assert number > 30


def test_a_sweeper_that_was_frozen_takes_nothing_from_a_generation_that_came_back(
    tmp_path: Path, start_process: StartProcess
) -> None:
    template = tmp_path / "template"
    files = DirectoryIndexFiles(template)
    for step in (1, 2):
        commit_step(files, step)
    wanted = merge_all(files)
    for step in (3, 4):
        commit_step(files, step)
    merge_all(files)
    commit_step(files, 5)
    # The frozen owner's sweep, after step 6, no longer keeps the first merged segment.
    needed = [layout.manifest_name(wanted.generation, 1), wanted.segments[0].parquet.name]
    _, reports = start_process(freeze_at_each_file_operation, template, tmp_path / "scratch")
    pid = reports.recv()
    number = 0
    was_frozen = True
    came_back = 0
    while was_frozen:
        number += 1
        index_prefix = tmp_path / "scratch" / str(number)
        _wait_until_frozen_or_done(pid, reports)
        files = DirectoryIndexFiles(index_prefix, term=lambda: 2)
        manifest = files.seal(2)
        if all((index_prefix / name).exists() for name in needed):
            came_back += 1
            with publish_lock(index_prefix, term=lambda: 2).held():
                manifest = roll_back(index_prefix, generation=wanted.generation, known_generation=0)
        _let_go_on(pid, reports)
        _, was_frozen = reports.recv()
        assert files.current() == manifest
        assert examine_files(index_prefix).has_all_rows
    assert came_back > 30
    assert number > came_back
