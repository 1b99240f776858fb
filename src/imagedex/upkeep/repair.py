"""Making an index and its catalog sound again from what is intact."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from imagedex.catalog import Catalog
from imagedex.core.errors import CorruptIndex
from imagedex.database import Database, DatabaseState, state_of
from imagedex.indexing import IndexTurns, Reconciler, jobs_with_parts
from imagedex.jobs import JobStore
from imagedex.segments import (
    FindingKind,
    IndexFiles,
    Mended,
    examine_files,
    mend_faiss_files,
    mend_pointer,
)
from imagedex.segments.layout import number_of_segment
from imagedex.upkeep.catalog_check import compare_catalog

HoldIndex = Callable[[], AbstractContextManager[object]]


class Repair:
    """Repairs one index. Each step can be the last; the same repair then goes on from there.

    The caller owns the home, so that no server runs on the database and none of this home
    publishes.
    """

    def __init__(
        self,
        files: IndexFiles,
        *,
        database: Database,
        catalog: Catalog,
        jobs: JobStore,
        hold_index: HoldIndex,
    ) -> None:
        """Take the index; ``hold_index`` keeps everybody else from publishing to it."""
        self._files = files
        self._prefix = files.index_prefix
        self._database = database
        self._catalog = catalog
        self._jobs = jobs
        self._hold_index = hold_index

    def run(self) -> list[str]:
        """Do what can be done; return what was done, and what could not be, in sentences.

        Raises StorageError when the storage fails, SettingsError for a database of a newer
        release, Unavailable when the database or the index stays locked.
        """
        actions = self._mend_database()
        if not self._prefix.is_dir():
            return actions
        with self._hold_index():
            actions += self._mend_files()
        try:
            actions += self._mend_catalog()
            actions += self._sweep()
        except CorruptIndex as error:
            actions.append(f"The catalog was left as it is: {error}")
        return actions

    def _mend_database(self) -> list[str]:
        state, told = state_of(self._database)
        if state is DatabaseState.SOUND:
            return []
        actions = []
        if state is DatabaseState.DAMAGED:
            self._database.close()
            actions.append(f"{told} It was kept as {self._database.move_aside()!r}.")
        existed = state is DatabaseState.OLDER
        self._database.upgrade()
        done = "was brought to this release's form" if existed else "was made anew"
        return [*actions, f"The database {self._database.where!r} {done}."]

    def _mend_files(self) -> list[str]:
        report = examine_files(self._prefix, is_locked=True)
        kinds = {finding.kind for finding in report.findings}
        actions: list[str] = []
        if kinds & {FindingKind.POINTER, FindingKind.MANIFEST}:
            index = self._catalog.get_index(self._prefix)
            known = index.generation if index is not None else 0
            mended = mend_pointer(self._prefix, known_generation=known)
            actions += mended.actions
            report = examine_files(self._prefix, is_locked=True)
        if report.manifest is None:
            return actions
        damaged = {
            number
            for finding in report.findings
            if finding.kind in (FindingKind.FAISS, FindingKind.ALIGNMENT)
            and finding.path is not None
            and (number := number_of_segment(self._name(finding.path))) is not None
        }
        if damaged:
            try:
                done = mend_faiss_files(self._prefix, report.manifest, damaged)
            except CorruptIndex as error:
                done = Mended(None, (f"A search structure could not be made again: {error}",))
            actions += done.actions
        return actions

    def _mend_catalog(self) -> list[str]:
        manifest = self._files.current()
        if manifest is None:
            return []
        reconciler = Reconciler(
            database=self._database,
            catalog=self._catalog,
            jobs=self._jobs,
            files_of=lambda _: self._files,
            on_published=lambda _: None,
            turns=IndexTurns(),
        )
        # Nothing may be forgotten before all that replaces it is known to be readable.
        if not compare_catalog(self._catalog, self._prefix, manifest):
            return []
        for segment in manifest.segments:
            for _ in self._files.read_facts(segment):
                pass
        reconciler.reconcile(self._prefix)
        if compare_catalog(self._catalog, self._prefix, manifest):
            reconciler.fill_anew(self._prefix)
        done = f"The catalog was brought to generation {manifest.generation} with"
        return [f"{done} {manifest.images} images, from the Parquet files."]

    def _sweep(self) -> list[str]:
        index = self._catalog.get_index(self._prefix)
        if index is None:
            return []
        deleted = self._files.sweep(keep_jobs=jobs_with_parts(self._jobs, index.index_id))
        return [f"{deleted} files that nothing needs were deleted."] if deleted else []

    def _name(self, path: str) -> str:
        return Path(path).relative_to(self._prefix).as_posix()
