"""What is wrong with an index, its files and its catalog."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from imagedex.catalog import Catalog
from imagedex.core.errors import CorruptIndex, NotFound
from imagedex.database import Database, DatabaseState, state_of
from imagedex.jobs import JobStore
from imagedex.segments import (
    FilesReport,
    Finding,
    FindingKind,
    IndexFiles,
    Manifest,
    examine_files,
)
from imagedex.segments.findings import REPAIR
from imagedex.upkeep.catalog_check import compare_catalog

_ATTEMPTS = 5
_PAUSE_SECONDS = 0.5
_MOVES_SECONDS = 60.0  # For a million rows, a fraction of it.


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What an examination found."""

    index_prefix: Path
    generation: int  # Of the index; 0 when none can be read, or when there is none.
    images: int
    files_checked: int
    bytes_checked: int
    findings: tuple[Finding, ...]

    @property
    def is_healthy(self) -> bool:
        """Whether nothing at all is wrong."""
        return not self.findings


class Doctor:
    """Examines one index and the database. Changes nothing; a server may run meanwhile."""

    def __init__(
        self, files: IndexFiles, *, database: Database, catalog: Catalog, jobs: JobStore
    ) -> None:
        self._files = files
        self._database = database
        self._catalog = catalog
        self._jobs = jobs

    def examine(self) -> Diagnosis:
        """Read all files of the index and hold the catalog against them.

        Raises StorageError when the storage cannot be read, SettingsError for a database of a
        newer release, Unavailable when it stays locked.
        """
        prefix = self._files.index_prefix
        report = examine_files(prefix)
        state, told = state_of(self._database)
        if state is DatabaseState.SOUND:
            findings = self._beside_the_database(report)
        elif state is DatabaseState.MISSING and report.manifest is None and not report.findings:
            findings = []  # Nothing was ever indexed here.
        else:
            findings = [_database_finding(self._database.where, state, told)]
        manifest = report.manifest
        return Diagnosis(
            index_prefix=prefix,
            generation=0 if manifest is None else manifest.generation,
            images=0 if manifest is None else manifest.images,
            files_checked=report.files_checked,
            bytes_checked=report.bytes_checked,
            findings=(*report.findings, *findings),
        )

    def _beside_the_database(self, report: FilesReport) -> list[Finding]:
        findings = self._orphaned_parts(report.parts)
        if report.manifest is None:
            return findings if report.findings else [*findings, *self._missing_index()]
        if report.has_all_rows:
            findings += self._catalog_findings(report.manifest)
        return findings

    def _missing_index(self) -> list[Finding]:
        index = self._catalog.get_index(self._files.index_prefix)
        if index is None or index.generation == 0:
            return []
        prefix = str(self._files.index_prefix)
        return [
            Finding(
                FindingKind.INDEX_MISSING,
                prefix,
                f"Generation {index.generation} was published to {prefix!r}, but nothing is there.",
                "mount its storage, or restore a snapshot",
            )
        ]

    def _catalog_findings(self, manifest: Manifest) -> list[Finding]:
        """Compare; a server that publishes meanwhile is given the time to record it."""
        self._wait_for_moves()
        for _ in range(_ATTEMPTS - 1):
            findings, is_final = self._compare(manifest)
            if is_final:
                return findings
            time.sleep(_PAUSE_SECONDS)
            manifest = self._files.current() or manifest
        return self._compare(manifest)[0]

    def _wait_for_moves(self) -> None:
        """Let a server that has merged segments tell the catalog of all rows."""
        deadline = time.monotonic() + _MOVES_SECONDS
        while time.monotonic() < deadline:
            index = self._catalog.get_index(self._files.index_prefix)
            if index is None or not index.is_moving:
                return
            time.sleep(_PAUSE_SECONDS)

    def _compare(self, manifest: Manifest) -> tuple[list[Finding], bool]:
        before = self._catalog.get_index(self._files.index_prefix)
        try:
            findings = compare_catalog(self._catalog, self._files.index_prefix, manifest)
        except CorruptIndex:
            if self._files.current() == manifest:
                raise
            return [], False  # Its files were swept meanwhile.
        if not findings:
            return findings, True
        is_still = (
            self._files.current() == manifest
            and self._catalog.get_index(self._files.index_prefix) == before
        )
        lags = before is not None and (before.is_moving or before.generation != manifest.generation)
        return findings, is_still and not lags

    def _orphaned_parts(self, parts: tuple[str, ...]) -> list[Finding]:
        # Those of a job that has ended lie there until the next job of the index has.
        names = [name for name in parts if not self._is_known(name.split("/")[1])]
        paths = [self._files.index_prefix / name for name in names]
        return [
            Finding(
                FindingKind.ORPHAN,
                str(path),
                f"The database does not know the job of the file {str(path)!r}.",
                f"the next job of the index deletes it, and {REPAIR}",
            )
            for path in paths
        ]

    def _is_known(self, job_id: str) -> bool:
        try:
            self._jobs.get(job_id)
        except NotFound:
            return False
        return True


def _database_finding(where: str, state: DatabaseState, told: str) -> Finding:
    remedies = {
        DatabaseState.MISSING: f"restore it from a backup; or {REPAIR} from the index, but for "
        "jobs and keys",
        DatabaseState.DAMAGED: f"restore it from a backup; or {REPAIR} from the index, but for "
        "jobs and keys",
        DatabaseState.OLDER: f"start the server once, or {REPAIR}",
    }
    return Finding(FindingKind.DATABASE, where, told, remedies[state])
