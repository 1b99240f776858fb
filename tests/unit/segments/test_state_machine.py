"""Random sequences of operations on the files of an index."""

from __future__ import annotations

from pathlib import Path

from hypothesis import HealthCheck, settings

from imagedex.segments import DirectoryIndexFiles, IndexFiles
from imagedex.testing.index_files import IndexFilesMachine


class _DirectoryMachine(IndexFilesMachine):
    def reopen(self, index_prefix: Path) -> IndexFiles:
        return DirectoryIndexFiles(index_prefix)


TestDirectoryIndexFiles = _DirectoryMachine.TestCase
TestDirectoryIndexFiles.settings = settings(
    max_examples=15,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
