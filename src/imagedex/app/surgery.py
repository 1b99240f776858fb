"""What looks after one index, without a server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from imagedex.app.foundations import ownership_of
from imagedex.catalog import SqlCatalog
from imagedex.core.errors import CorruptIndex
from imagedex.database import Database, HomeLock, Transaction, held
from imagedex.indexing import IndexLocations, Seals
from imagedex.jobs import SqlJobStore
from imagedex.segments import DirectoryIndexFiles, SnapshotDirectory, publish_lock
from imagedex.settings import Settings
from imagedex.upkeep import Diagnosis, Doctor, Repair, Snapshots

_log = structlog.get_logger(__name__)


class Surgery:
    """What looks after one index, wired; close it afterwards."""

    def __init__(self, settings: Settings, index_prefix: str | None) -> None:
        """Open nothing yet. Raises OutsideIndexRoots, InvalidRequest for the prefix."""
        self._home = settings.home
        database = Database(settings.effective_database_url)
        self._ownership = ownership_of(database, settings)
        self._is_alone = False
        self._unguarded = database
        self._database = database.guarded(self._require_alone)
        self._catalog = SqlCatalog(self._database)
        self._jobs = SqlJobStore(self._database)
        locations = IndexLocations(settings.effective_index_prefix, settings.index_roots)
        self._files = DirectoryIndexFiles(
            locations.resolve(index_prefix), term=lambda: self._ownership.term
        )
        self._lock = publish_lock(self._files.index_prefix, term=lambda: self._ownership.term)
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
                hold_index=self._lock.held,
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
            hold_index=self._lock.held,
        )

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Be the only one in the block who changes the index: no server runs its jobs.

        Raises HomeInUse, naming the server that does.
        """
        with HomeLock(self._home):
            if self._ownership.is_shared:
                self._unguarded.upgrade()  # So that it can say who that is.
            with held(self._ownership, self._unguarded):
                self._is_alone = self._ownership.is_shared
                try:
                    self._seal()
                    yield
                finally:
                    self._is_alone = False

    def _seal(self) -> None:
        """End what a server that was replaced was about to publish."""
        if not self._is_alone:
            return
        try:
            index = self._catalog.get_index(self._files.index_prefix)
            if index is not None:
                seals = Seals(self._jobs, lambda _: self._files)
                seals.seal(index.index_prefix, index.index_id)
        except CorruptIndex as error:  # That may be why it is to be repaired.
            _log.warning("index_not_sealed", error=str(error))

    def _require_alone(self, transaction: Transaction) -> None:
        if self._is_alone:
            self._ownership.require_held(transaction)

    def close(self) -> None:
        """Close the database."""
        self._database.close()
