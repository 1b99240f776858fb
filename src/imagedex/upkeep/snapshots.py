"""Keeping a state of an index and its catalog, and going back to one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from itertools import islice
from pathlib import Path

from imagedex.catalog import Catalog
from imagedex.core.errors import Conflict, CorruptIndex, NotFound, Unavailable
from imagedex.core.images import ImageFailure
from imagedex.core.times import utc_now
from imagedex.database import Database, DatabaseState, state_of
from imagedex.indexing import IndexTurns, Reconciler, missing_index
from imagedex.jobs import JobStore
from imagedex.segments import (
    IndexFiles,
    Manifest,
    Snapshot,
    SnapshotDirectory,
    roll_back,
)

_ATTEMPTS = 5
_BATCH = 5_000


def _pass_over(_index_prefix: Path) -> None:
    """Serve nothing: there is no server."""


class Snapshots:
    """The snapshots of one index.

    For ``restore`` and ``roll_back`` the caller owns the home, so that no server publishes, or is
    that server and has the turn of the index. The others may be called at any time.
    """

    def __init__(
        self,
        files: IndexFiles,
        directory: SnapshotDirectory,
        *,
        database: Database,
        catalog: Catalog,
        jobs: JobStore,
        hold_index: Callable[[], AbstractContextManager[object]],
        turns: IndexTurns | None = None,
        on_published: Callable[[Path], object] = _pass_over,
    ) -> None:
        """Take the index; ``hold_index`` keeps everybody else from publishing to it.

        In a server, ``turns`` are those of its jobs, and ``on_published`` serves what has become
        current.
        """
        self._files = files
        self._directory = directory
        self._database = database
        self._catalog = catalog
        self._jobs = jobs
        self._hold_index = hold_index
        self._turns = turns or IndexTurns()
        self._on_published = on_published

    def create(
        self, name: str | None, *, checkpoint: Callable[[], None] = lambda: None
    ) -> Snapshot:
        """Keep the current generation, and which images have failed; return the snapshot.

        Without a name it is called after the time and the generation. Raises NotFound while
        nothing is indexed, Conflict when the name is taken, CorruptIndex when a file is damaged,
        Unavailable when the index changes faster than it can be kept, StorageError; and what
        ``checkpoint`` raises, which is called every few MB.
        """
        for _ in range(_ATTEMPTS - 1):
            manifest = self._current()
            try:
                return self._create(name, manifest, checkpoint)
            except CorruptIndex:
                # Its files may have been swept, newer generations having been published.
                if self._current() == manifest:
                    raise
        manifest = self._current()
        try:
            return self._create(name, manifest, checkpoint)
        except CorruptIndex as error:
            if self._current() == manifest:
                raise
            raise Unavailable(
                "The index changed each time that it was being kept; try again when fewer images "
                "come in."
            ) from error

    def _create(
        self, name: str | None, manifest: Manifest, checkpoint: Callable[[], None]
    ) -> Snapshot:
        chosen = name or _name_of(manifest)
        return self._directory.create(
            chosen,
            self._files.index_prefix,
            manifest,
            self._known_failures(),
            checkpoint=checkpoint,
        )

    def _current(self) -> Manifest:
        manifest = self._files.current()
        if manifest is None:
            raise NotFound(f"Nothing is indexed at {str(self._files.index_prefix)!r}.")
        return manifest

    def _known_failures(self) -> Iterable[ImageFailure]:
        if state_of(self._database)[0] is not DatabaseState.SOUND:
            return ()
        index = self._catalog.get_index(self._files.index_prefix)
        return () if index is None else self._catalog.failures(index.index_id)

    def free_name(self, name: str | None) -> str:
        """Return a name for a snapshot that could be made now: this one, or one of our own.

        Raises NotFound while nothing is indexed, Conflict when the name is taken, InvalidRequest.
        """
        manifest = self._current()
        chosen = name or _name_of(manifest)
        try:
            self._directory.get(chosen)
        except NotFound:
            return chosen
        except CorruptIndex as error:
            raise _taken(chosen) from error
        raise _taken(chosen)

    def get(self, name: str) -> Snapshot:
        """Return one. Raises NotFound, InvalidRequest, CorruptIndex when it cannot be read."""
        return self._directory.get(name)

    def list(self) -> list[Snapshot | CorruptIndex]:
        """Return all, oldest first, and after them why some cannot be read."""
        return self._directory.list()

    def delete(self, name: str) -> None:
        """Delete one; the index is not touched. Raises NotFound, StorageError."""
        self._directory.delete(name)

    def restore(self, name: str, *, recreate: bool = False) -> Manifest:
        """Publish a snapshot as a new generation, and let the catalog follow; return it.

        Raises NotFound, CorruptIndex when the snapshot is damaged, and StorageError, also when
        the index's files are gone though the catalog knows of them: ``recreate`` says that this
        is no missing mount.
        """
        snapshot = self._directory.get(name)
        self._database.upgrade()
        known = self._known_generation()
        if known and not recreate and not self._files.index_prefix.is_dir():
            raise missing_index(self._files.index_prefix, known)
        self._files.index_prefix.mkdir(parents=True, exist_ok=True)
        with self._hold_index():
            manifest = self._directory.bring_back(
                snapshot, self._files.index_prefix, known_generation=known
            )
        self._follow()
        self._record_failures(self._directory.failures(snapshot))
        return manifest

    def roll_back(self, generation: int | None) -> Manifest:
        """Publish an earlier generation as a new one, and let the catalog follow; return it.

        Raises NotFound when it is not kept any more, CorruptIndex, StorageError.
        """
        self._database.upgrade()
        self._current()
        with self._hold_index():
            manifest = roll_back(
                self._files.index_prefix,
                generation=generation,
                known_generation=self._known_generation(),
            )
        self._follow()
        return manifest

    def _known_generation(self) -> int:
        index = self._catalog.get_index(self._files.index_prefix)
        return 0 if index is None else index.generation

    def _follow(self) -> None:
        Reconciler(
            database=self._database,
            catalog=self._catalog,
            jobs=self._jobs,
            files_of=lambda _: self._files,
            on_published=self._on_published,
            turns=self._turns,
        ).reconcile(self._files.index_prefix)

    def _record_failures(self, failures: Iterable[ImageFailure]) -> None:
        index_id = self._catalog.ensure_index(self._files.index_prefix).index_id
        iterator = iter(failures)
        while batch := list(islice(iterator, _BATCH)):
            with self._database.transaction() as transaction:
                self._catalog.record_failures(transaction, index_id, batch)


def _name_of(manifest: Manifest) -> str:
    return f"{utc_now():%Y%m%dT%H%M%SZ}-generation-{manifest.generation}"


def _taken(name: str) -> Conflict:
    return Conflict(f"There is a snapshot {name!r} already; choose another name, or delete it.")
