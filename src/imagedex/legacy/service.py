"""What can be asked for about old indexes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from imagedex.catalog import Catalog
from imagedex.core.errors import FingerprintMismatch, InvalidRequest, OutsideImageRoots
from imagedex.core.fingerprints import ModelIdentity
from imagedex.embedding import VectorSpace
from imagedex.indexing import IndexLocations
from imagedex.ingest import ImageRoots
from imagedex.jobs import Job, JobKind, JobStore, NewJob, Priority
from imagedex.legacy.exporting import ExportOptions, ExportReport, export_index
from imagedex.legacy.records import ImportOptions, ImportReport, ImportRequest
from imagedex.legacy.source import LegacySource, require_roots_present, stamps_of
from imagedex.segments import IndexFiles


class LegacyService:
    """Adopts old indexes and writes them back. Safe to call from several threads."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        jobs: JobStore,
        image_roots: ImageRoots,
        locations: IndexLocations,
        files_of: Callable[[Path], IndexFiles],
        space_of: Callable[[str], VectorSpace],
    ) -> None:
        """``space_of`` says by a model's name what vectors it has made; it raises ModelError."""
        self._catalog = catalog
        self._jobs = jobs
        self._image_roots = image_roots
        self._locations = locations
        self._files_of = files_of
        self._space_of = space_of

    def adopt(
        self, options: ImportOptions, *, index_prefix: str | None = None
    ) -> tuple[Job, ImportReport]:
        """Check an old index and request that it be adopted into an index; return both findings.

        All vectors are read once. The job copies them, so that the old files stay what they are;
        while it runs they must not change. The same request while its job is active returns
        that job. Raises InvalidRequest when the files do not belong together or cannot be taken,
        OutsideImageRoots, OutsideIndexRoots, FingerprintMismatch, ModelError, StorageError.
        """
        prefix = self._locations.resolve(index_prefix)
        space = self._space_of(options.model)
        sources = stamps_of(options)
        source = LegacySource.open(options, self._image_roots)
        pair, placed = source.pair, source.placed
        if pair.dim != space.dim:
            raise InvalidRequest(
                f"The vectors of the old index have {pair.dim} numbers, but those of the model "
                f"{space.name!r} have {space.dim}; name the model that made them by --model."
            )
        if not placed.row_of:
            first = placed.failures[0]
            raise OutsideImageRoots(
                f"No row of the old index can be taken; the first: {first.detail}"
            )
        self._require_same_space(prefix, space)
        require_roots_present(placed, self._image_roots)
        vectors = pair.check_vectors()
        request = ImportRequest(options, prefix, space.fingerprint, pair.dim, sources)
        report = ImportReport(
            rows=pair.rows,
            images=len(placed.row_of),
            duplicates=placed.duplicates,
            unplaced=len(placed.failures),
            dim=pair.dim,
            path_column=pair.path_column,
            vector_column=pair.vector_column,
            faiss=pair.faiss_kind,
            compared=vectors.compared,
            scaled=vectors.scaled,
            unusable=vectors.unusable,
            pending=0 if source.state is None else source.state.pending,
            model=space.name,
            fingerprint=space.fingerprint,
        )
        return self._submit(request, images=len(placed.row_of)), report

    def export(self, options: ExportOptions, *, index_prefix: str | None = None) -> ExportReport:
        """Write an index as the old scripts kept it; see ``export_index``."""
        return export_index(self._files_of(self._locations.resolve(index_prefix)), options)

    def _require_same_space(self, prefix: Path, space: VectorSpace) -> None:
        manifest = self._files_of(prefix).current()
        if manifest is None or manifest.fingerprint == space.fingerprint:
            return
        stored = ModelIdentity(manifest.model_name, manifest.fingerprint)
        used = ModelIdentity(space.name, space.fingerprint)
        raise FingerprintMismatch(
            f"The index at {str(prefix)!r} holds vectors of {stored}, the old index those of "
            f"{used}; name another place for it by --index-prefix."
        )

    def _submit(self, request: ImportRequest, *, images: int) -> Job:
        index = self._catalog.ensure_index(request.index_prefix)
        document = request.to_json()
        canonical = json.dumps([JobKind.IMPORT.value, document], sort_keys=True).encode()
        return self._jobs.submit(
            NewJob(
                index_id=index.index_id,
                kind=JobKind.IMPORT,
                request=document,
                priority=Priority.NORMAL,
                dedupe_key=hashlib.sha256(canonical).hexdigest(),
                images_count=images,
                runs_again=False,  # The files are those of the request, or it fails.
            )
        )
