"""What a new owner of the jobs publishes before anything else."""

from __future__ import annotations

from pathlib import Path

from imagedex.catalog import SqlCatalog
from imagedex.database import Database
from imagedex.indexing import Seals
from imagedex.jobs import SqlJobStore
from imagedex.segments import DirectoryIndexFiles
from imagedex.testing.index_files import make_commit, make_part, unit_vectors
from support.empty_database import database_in


def _index(database: Database, index_prefix: Path) -> int:
    return SqlCatalog(database).ensure_index(index_prefix).index_id


def test_an_index_is_sealed_once_under_a_fence_above_all(tmp_path: Path) -> None:
    database = database_in(tmp_path / "imagedex.db")
    files = DirectoryIndexFiles(tmp_path / "index")
    index_id = _index(database, files.index_prefix)
    part = files.write_part("job", 0, 5, make_part({"/a": unit_vectors(1, 3)[0]}, dim=3))
    first = files.commit(make_commit(None, dim=3, parts=[part], fence=5))
    seals = Seals(SqlJobStore(database), lambda _: files)
    seals.seal(files.index_prefix, index_id)
    sealed = files.current()
    assert sealed is not None
    assert sealed.fence > first.fence
    seals.seal(files.index_prefix, index_id)
    assert files.current() == sealed
    database.close()


def test_what_this_owner_has_published_is_not_sealed_against_itself(tmp_path: Path) -> None:
    database = database_in(tmp_path / "imagedex.db")
    files = DirectoryIndexFiles(tmp_path / "index")
    index_id = _index(database, files.index_prefix)
    seals = Seals(SqlJobStore(database), lambda _: files)
    seals.seal(files.index_prefix, index_id)  # There is nothing yet.
    part = files.write_part("job", 0, 5, make_part({"/a": unit_vectors(1, 3)[0]}, dim=3))
    first = files.commit(make_commit(None, dim=3, parts=[part], fence=5))
    seals.note_published(files.index_prefix)
    seals.seal(files.index_prefix, index_id)
    assert files.current() == first
    database.close()
