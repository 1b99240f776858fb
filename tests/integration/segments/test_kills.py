"""``kill -9`` of processes that publish: nothing acknowledged is lost, nothing is half there."""

from __future__ import annotations

import random
import shutil
import time
from multiprocessing.connection import Connection
from pathlib import Path

from imagedex.segments import DirectoryIndexFiles
from imagedex.testing.index_files import assert_holds
from support.committing import (
    DIM,
    StartProcess,
    commit_step,
    commit_until_killed,
    die_at_file_operation,
    die_while_merging,
    images_after,
    merge_all,
    step_of,
)


def _drain(reports: Connection) -> list[int]:
    received = []
    try:
        while True:
            received.append(reports.recv())
    except EOFError:
        return received


def test_kills_at_random_moments_lose_nothing_that_was_acknowledged(
    tmp_path: Path, start_process: StartProcess
) -> None:
    chance = random.Random(11)
    for round_number in range(5):
        index_prefix = tmp_path / str(round_number)
        files = DirectoryIndexFiles(index_prefix)
        for _ in range(6):
            process, reports = start_process(commit_until_killed, index_prefix)
            first = reports.recv()  # It has begun; the first round is killed in its first commit.
            time.sleep(chance.uniform(0.0, 0.12))
            process.kill()
            acknowledged = [first, *_drain(reports)][-1]
            process.join()
            step = step_of(files.current())
            # The kill may have come between publishing and telling.
            assert step in (acknowledged, acknowledged + 1)
            assert_holds(files, images_after(step), dim=DIM)
        process, reports = start_process(commit_until_killed, index_prefix)
        while reports.recv() < step + 2:
            pass
        process.kill()
        process.join()


def test_a_kill_before_each_single_file_operation_leaves_the_old_or_the_new_generation(
    tmp_path: Path, start_process: StartProcess
) -> None:
    template = tmp_path / "template"
    for step in (1, 2):
        commit_step(DirectoryIndexFiles(template), step)
    outcomes = set()
    number = 0
    done = False
    while not done:
        number += 1
        index_prefix = tmp_path / str(number)
        shutil.copytree(template, index_prefix)
        process, reports = start_process(die_at_file_operation, index_prefix, number)
        received = _drain(reports)
        process.join()
        done = received == [3, 0]
        files = DirectoryIndexFiles(index_prefix)
        step = step_of(files.current())
        assert step in ((3,) if received else (2, 3))
        assert_holds(files, images_after(step), dim=DIM)
        outcomes.add((step, received == [], done))
        commit_step(files, step + 1)
        files.sweep(keep_jobs=[])
        assert_holds(files, images_after(step + 1), dim=DIM)
        assert not list(index_prefix.rglob("*.tmp"))
    # Killed before it counted, before it was told, in the sweep, and not at all.
    assert outcomes == {(2, True, False), (3, True, False), (3, False, False), (3, False, True)}
    assert number > 25


def test_a_kill_before_each_single_file_operation_of_a_merge_changes_nothing_that_is_found(
    tmp_path: Path, start_process: StartProcess
) -> None:
    template = tmp_path / "template"
    files = DirectoryIndexFiles(template)
    for step in (1, 2, 3):
        before = commit_step(files, step)
    outcomes = set()
    number = 0
    done = False
    while not done:
        number += 1
        index_prefix = tmp_path / str(number)
        shutil.copytree(template, index_prefix)
        process, reports = start_process(die_while_merging, index_prefix, number)
        received = _drain(reports)
        process.join()
        done = received[-1:] == [0]
        files = DirectoryIndexFiles(index_prefix)
        current = files.current()
        assert current is not None
        is_merged = len(current.segments) == 1
        assert is_merged or current == before
        assert is_merged or not received
        assert_holds(files, images_after(3), dim=DIM)
        outcomes.add((is_merged, received == [], done))
        merge_all(files)
        commit_step(files, 4)
        files.sweep(keep_jobs=[])
        assert_holds(files, images_after(4), dim=DIM)
        assert not list(index_prefix.rglob("*.tmp"))
    # Killed before it counted, before it was told, in the sweep, and not at all.
    assert outcomes == {
        (False, True, False),
        (True, True, False),
        (True, False, False),
        (True, False, True),
    }
    assert number > 20
