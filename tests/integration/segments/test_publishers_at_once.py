"""Several processes on the files of one index."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

from imagedex.segments import DirectoryIndexFiles
from imagedex.testing.index_files import assert_holds, unit_vectors
from support.committing import DIM, add_images_beside_others


def test_two_processes_that_publish_at_once_never_lose_a_commit(tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    names = ["one", "two", "three"]
    processes = [
        context.Process(target=add_images_beside_others, args=(tmp_path, name, 8)) for name in names
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    files = DirectoryIndexFiles(tmp_path)
    expected = {
        f"/{name}/{number}": unit_vectors(1, DIM, seed=number)[0]
        for name in names
        for number in range(8)
    }
    assert_holds(files, expected, dim=DIM)
    manifest = files.current()
    assert manifest is not None
    assert manifest.generation == 24
