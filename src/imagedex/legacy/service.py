"""What can be asked for about old indexes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from imagedex.catalog import Catalog
from imagedex.core.errors import FingerprintMismatch, InvalidRequest, OutsideImageRoots
from imagedex.core.fingerprints import ModelIdentity
from imagedex.embedding import TextEncoder, VectorSpace
from imagedex.indexing import IndexLocations
from imagedex.ingest import ImageRoots
from imagedex.jobs import Job, JobKind, JobStore, NewJob, Priority
from imagedex.legacy.comparison import AgreementReport, compare_rankings
from imagedex.legacy.exporting import ExportOptions, ExportReport, export_index
from imagedex.legacy.pair import LegacyPair
from imagedex.legacy.placing import image_path_of
from imagedex.legacy.records import CompareOptions, ImportOptions, ImportReport, ImportRequest
from imagedex.legacy.source import LegacySource, require_roots_present, stamps_of
from imagedex.search import QueryAnswer
from imagedex.search.query import Query, require_valid_query
from imagedex.segments import IndexFiles

_TEXTS_AT_ONCE = 64


class LegacyService:
    """Adopts old indexes, compares with them, writes them back.

    Safe to call from several threads.
    """

    def __init__(
        self,
        *,
        catalog: Catalog,
        jobs: JobStore,
        image_roots: ImageRoots,
        locations: IndexLocations,
        files_of: Callable[[Path], IndexFiles],
        space_of: Callable[[str], VectorSpace],
        encoder_of: Callable[[Path], TextEncoder],
        ask: Callable[[str, int, str | None], QueryAnswer],
    ) -> None:
        """Take what it works with.

        ``space_of`` says by a model's name what vectors it has made, or raises ModelError;
        ``encoder_of`` gives what encodes texts for an index, and ``ask`` answers a text with so
        many images, from the index of that prefix.
        """
        self._catalog = catalog
        self._jobs = jobs
        self._image_roots = image_roots
        self._locations = locations
        self._files_of = files_of
        self._space_of = space_of
        self._encoder_of = encoder_of
        self._ask = ask

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

    def compare(
        self,
        options: CompareOptions,
        texts: Sequence[str],
        *,
        index_prefix: str | None = None,
    ) -> AgreementReport:
        """Ask an old index and one of ours for the same texts, at least one.

        The old one is searched as its scripts did, by Faiss, with the text vectors of the model
        that our index has. Raises InvalidRequest for texts that cannot be asked and when either
        index has nothing to compare, ModelNotInstalled when texts cannot be embedded,
        FingerprintMismatch, StorageError.
        """
        for text in texts:
            require_valid_query(Query.of_text(text, options.top_k))
        pair = LegacyPair.open(
            options.prefix,
            path_column=options.path_column,
            vector_column=options.vector_column,
        )
        paths = pair.paths()
        asked = [self._ask(text, options.top_k, index_prefix) for text in texts]
        if asked[0].total_images == 0:
            raise InvalidRequest(
                "There is no image in the index, so nothing to compare with; adopt the old one by "
                "imagedex import-legacy, or check --index-prefix."
            )
        return AgreementReport(
            top_k=options.top_k,
            old_images=pair.rows,
            new_images=asked[0].total_images,
            queries=tuple(
                compare_rankings(
                    text,
                    [image_path_of(paths[row] or "", row, options.root) for row in rows],
                    [result.image_path for result in answer.results],
                )
                for text, rows, answer in zip(
                    texts,
                    self._old_best(
                        pair,
                        self._encoder_of(self._locations.resolve(index_prefix)),
                        texts,
                        options.top_k,
                    ),
                    asked,
                    strict=True,
                )
            ),
        )

    def _old_best(
        self, pair: LegacyPair, encoder: TextEncoder, texts: Sequence[str], top_k: int
    ) -> list[list[int]]:
        found: list[list[int]] = []
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            vectors = encoder.encode_texts(texts[start : start + _TEXTS_AT_ONCE]).vectors
            if vectors.shape[1] != pair.dim:
                raise InvalidRequest(
                    f"The vectors of the old index have {pair.dim} numbers, but those of texts "
                    f"{vectors.shape[1]}; set IMAGEDEX_MODEL to the model that made them."
                )
            best = pair.best(vectors, min(top_k, pair.rows)).tolist()
            # Faiss gives -1 where too few rows have a score at all.
            found += [[row for row in rows if row >= 0] for rows in best]
        return found

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
