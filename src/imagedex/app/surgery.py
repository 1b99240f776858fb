"""What looks after one index, without a server."""

from __future__ import annotations

from imagedex.catalog import SqlCatalog
from imagedex.database import Database, HomeLock
from imagedex.indexing import IndexLocations
from imagedex.jobs import SqlJobStore
from imagedex.segments import DirectoryIndexFiles, SnapshotDirectory, publish_lock
from imagedex.settings import Settings
from imagedex.upkeep import Diagnosis, Doctor, Repair, Snapshots


class Surgery:
    """What looks after one index, wired; close it afterwards."""

    def __init__(self, settings: Settings, index_prefix: str | None) -> None:
        """Open nothing yet. Raises OutsideIndexRoots, InvalidRequest for the prefix."""
        self._home = settings.home
        self._database = Database(settings.effective_database_url)
        self._catalog = SqlCatalog(self._database)
        self._jobs = SqlJobStore(self._database)
        locations = IndexLocations(settings.effective_index_prefix, settings.index_roots)
        self._files = DirectoryIndexFiles(locations.resolve(index_prefix))
        self._snapshots_directory = settings.snapshots_of(self._files.index_prefix)

    def examine(self) -> Diagnosis:
        """Say what is wrong; changes nothing."""
        return Doctor(
            self._files, database=self._database, catalog=self._catalog, jobs=self._jobs
        ).examine()

    def repair(self) -> list[str]:
        """Make good what can be made good; return what was done, in sentences.

        Raises HomeInUse while a server runs on this home.
        """
        with self.alone():
            return Repair(
                self._files,
                database=self._database,
                catalog=self._catalog,
                jobs=self._jobs,
                hold_index=publish_lock(self._files.index_prefix).held,
            ).run()

    @property
    def snapshots(self) -> Snapshots:
        """Keep states of the index; to go back to one, hold the home (``alone``)."""
        return Snapshots(
            self._files,
            SnapshotDirectory(self._snapshots_directory),
            database=self._database,
            catalog=self._catalog,
            jobs=self._jobs,
            hold_index=publish_lock(self._files.index_prefix).held,
        )

    def alone(self) -> HomeLock:
        """Return the lock of the home, to be held in a block. It raises HomeInUse there."""
        return HomeLock(self._home)

    def close(self) -> None:
        """Close the database."""
        self._database.close()
