"""The composition root: settings in, wired services out.

This is the only module that picks adapters. Edges get an :class:`Application` and nothing else.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from weakref import WeakValueDictionary

import structlog

from imagedex.access import KeyService, SqlKeyStore
from imagedex.catalog import Catalog, SqlCatalog
from imagedex.core.errors import ImagedexError, ModelNotInstalled, NotFound
from imagedex.core.fingerprints import ModelIdentity
from imagedex.database import Database, HomeLock, prepare_home
from imagedex.embedding import EmbeddingModel, EncodedTexts, TextEncoder, VectorSpace
from imagedex.embedding.runtimes import Precision
from imagedex.engine import DaskLocalEngine, Engine
from imagedex.indexing import (
    IndexFlow,
    Indexing,
    IndexingService,
    IndexLocations,
    IndexTurns,
    MergePolicy,
    Merger,
    ModelChanger,
    Publisher,
    RemovalRules,
    WorkerSetup,
    missing_index,
    new_rebuild,
)
from imagedex.ingest import DecodeLimits, IgnoreRules, ImageRoots, Thumbnailer
from imagedex.jobs import (
    CronTimes,
    JobKind,
    JobRunner,
    Lane,
    NewJob,
    Priority,
    Schedule,
    Scheduler,
    SqlJobStore,
)
from imagedex.legacy import ImportFlow, LegacyService
from imagedex.models import AbsentModel, IndexModels, ModelStore, absent_model, find_model
from imagedex.search import (
    BackgroundVerifier,
    PictureReader,
    PictureTerm,
    Query,
    QueryAnswer,
    QueryService,
    QueryServices,
)
from imagedex.segments import (
    DirectoryIndexFiles,
    IndexFiles,
    IvfPolicy,
    SnapshotDirectory,
    publish_lock,
)
from imagedex.settings import Settings
from imagedex.upkeep import (
    DatabaseBackups,
    Diagnosis,
    Doctor,
    Repair,
    SnapshotJobs,
    Snapshots,
)

_log = structlog.get_logger(__name__)

_MAX_OPEN_INDEXES = 256
_IMPORTED_FOR_EMBEDDED = 16
_JOBS_AT_ONCE = 4  # A rebuild must not keep those of other indexes waiting.
_UPKEEP_POLL_SECONDS = 0.1


class Application:
    """All services of one process, wired. Safe to call from several threads once started."""

    settings: Settings
    model: EmbeddingModel
    indexing: Indexing
    keys: KeyService

    def __init__(self, settings: Settings, *, run_jobs: bool) -> None:
        self.settings = settings
        self._run_jobs = run_jobs
        self._home_lock = HomeLock(settings.home)
        self._database = Database(settings.effective_database_url)
        self._locations = IndexLocations(settings.effective_index_prefix, settings.index_roots)
        self._image_roots = ImageRoots(settings.image_roots)
        self.model = model_to_serve(settings)
        self._catalog: Catalog = SqlCatalog(self._database)
        self._jobs = SqlJobStore(self._database, lease_seconds=settings.indexing.lease_seconds)
        self._engine = _make_engine(settings)
        # One object for each index, since it remembers the manifest that it has read.
        ivf = IvfPolicy(
            min_rows=settings.search.ivf_min_rows,
            min_recall=settings.search.min_recall,
            flat_min_rows=settings.search.flat_min_rows,
        )
        files_of = lru_cache(maxsize=_MAX_OPEN_INDEXES)(partial(DirectoryIndexFiles, ivf=ivf))
        self._verifier = BackgroundVerifier(
            lambda prefix, should_stop: self._queries.verify(prefix, should_stop)
        )
        self._files_of = files_of
        self._models = IndexModels(self.model, partial(_model_or_its_description, settings))
        self._encoders = _TextEncoders(threads=_search_threads(settings))
        self._queries = QueryServices(
            files_of=files_of, model_of=self._models.of, make=self._query_service
        )
        self._turns = IndexTurns()
        self._publisher = self._publisher_of(self.model, self._queries.refresh)
        limits = decode_limits(settings)
        self._thumbnails = Thumbnailer(roots=self._image_roots, limits=limits)
        self.snapshots = SnapshotJobs(
            catalog=self._catalog,
            jobs=self._jobs,
            locations=self._locations,
            turns=self._turns,
            snapshots_of=self._snapshots_of,
            kept=settings.snapshots.keep,
        )
        self._pictures = _PictureReaders(limits=limits, threads=_search_threads(settings))
        self._runner = self._make_runner(limits, files_of)
        self.indexing = IndexingService(
            catalog=self._catalog,
            jobs=self._jobs,
            engine=self._engine,
            model=self.model,
            find_model=self._models.named,
            image_roots=self._image_roots,
            locations=self._locations,
            files_of=files_of,
        )
        self.legacy = LegacyService(
            catalog=self._catalog,
            jobs=self._jobs,
            image_roots=self._image_roots,
            locations=self._locations,
            files_of=files_of,
            space_of=partial(stored_space, settings),
            encoder_of=lambda prefix: self._encoders.of(self._model_of(prefix)),
            ask=lambda text, top_k, prefix: self.query(text, top_k=top_k, index_prefix=prefix),
        )
        self._warming: threading.Thread | None = None
        self._scheduler = Scheduler(self._jobs, self._schedules())
        admin_key = settings.admin_key.get_secret_value() if settings.admin_key else None
        self.keys = KeyService(SqlKeyStore(self._database), admin_key=admin_key)

    def _query_service(self, model: EmbeddingModel) -> QueryService:
        return QueryService(
            files_of=self._files_of,
            encoder=self._encoders.of(model),
            model_name=model.name,
            fingerprint=model.fingerprint,
            dim=model.dim,
            cache_entries=self.settings.search.cache_entries,
            on_opened=self._verifier.ask,
        )

    def _model_of(self, index_prefix: Path) -> EmbeddingModel:
        """Return the model of an index; that of the settings for one that is new."""
        manifest = self._files_of(index_prefix).current()
        if manifest is None:
            return self._models.of(None)
        return self._models.of(ModelIdentity(manifest.model_name, manifest.fingerprint))

    def _publisher_of(
        self, space: VectorSpace, on_published: Callable[[Path], object]
    ) -> Publisher:
        return Publisher(
            database=self._database,
            catalog=self._catalog,
            jobs=self._jobs,
            model=space,
            image_roots=self._image_roots,
            files_of=self._files_of,
            on_published=on_published,
            turns=self._turns,
        )

    def _snapshots_of(self, index_prefix: Path) -> Snapshots:
        return Snapshots(
            self._files_of(index_prefix),
            SnapshotDirectory(self.settings.snapshots_of(index_prefix)),
            database=self._database,
            catalog=self._catalog,
            jobs=self._jobs,
            hold_index=publish_lock(index_prefix).held,
            turns=self._turns,
            on_published=self._refresh_if_served,
        )

    def _make_runner(
        self, limits: DecodeLimits, files_of: Callable[[Path], IndexFiles]
    ) -> JobRunner:
        settings = self.settings.indexing
        # An index can be of another model than this process serves; its jobs go on all the same.
        publisher_of_any = self._publisher_of(self.model, self._refresh_if_served)
        merger = Merger(
            publisher_of_any,
            self._jobs,
            MergePolicy(max_deltas=settings.max_deltas, rebuild_share=settings.rebuild_share),
        )
        setup = WorkerSetup(
            model=self.model,
            image_roots=self._image_roots,
            limits=limits,
            batch_images=settings.batch_images,
        )
        flow = IndexFlow(
            database=self._database,
            catalog=self._catalog,
            jobs=self._jobs,
            engine=self._engine,
            publisher=self._publisher,
            merger=merger,
            setup=setup,
            model_of=self._model_of,
            chunk_images=settings.chunk_images,
            commit_images=settings.commit_images,
            commit_seconds=settings.commit_seconds,
            files_of=files_of,
            ignore=IgnoreRules(settings.ignore),
            removal=RemovalRules(
                grace_seconds=settings.removal_grace_seconds, max_share=settings.removal_share
            ),
            settle_seconds=settings.settle_seconds,
            shared_from_images=settings.shared_from_images,
        )
        changer = ModelChanger(
            database=self._database,
            catalog=self._catalog,
            jobs=self._jobs,
            engine=self._engine,
            publisher=publisher_of_any,
            turns=self._turns,
            setup=setup,
            files_of=files_of,
            find=self._models.named,
            warm=self._queries.warm,
            cool=self._queries.cool,
            on_published=self._refresh_if_served,
            chunk_images=settings.chunk_images,
            max_share=settings.removal_share,
        )
        import_flow = ImportFlow(
            catalog=self._catalog,
            jobs=self._jobs,
            files_of=self._files_of,
            publisher=publisher_of_any,
            publisher_of=lambda space: self._publisher_of(space, self._refresh_if_served),
            merger=merger,
            image_roots=self._image_roots,
            limits=limits,
            processes=settings.threads_per_worker or len(os.sched_getaffinity(0)),
            # Nothing is embedded, so that an image costs a fraction of what it costs a worker.
            chunk_images=_IMPORTED_FOR_EMBEDDED * settings.chunk_images,
            commit_images=settings.commit_images,
        )
        handlers = {
            JobKind.FULL: flow.run,
            JobKind.INCREMENTAL: flow.run,
            JobKind.REBUILD: merger.rebuild,
            JobKind.CHANGE_MODEL: changer.run,
            JobKind.IMPORT: import_flow.run,
            JobKind.SNAPSHOT: self.snapshots.run_snapshot,
            JobKind.RESTORE: self.snapshots.run_restore,
            JobKind.BACKUP: DatabaseBackups(
                self._database,
                self.settings.backups_directory,
                keep=self.settings.backup.keep,
            ).run,
        }
        # Owners of one home share a prefix, so that a restart knows the leases of its former life.
        self._owner_prefix = f"{socket.gethostname()}:{self.settings.home}:"
        return JobRunner(
            self._jobs,
            handlers,
            owner=f"{self._owner_prefix}{os.getpid()}:{secrets.token_hex(4)}",
            threads=_JOBS_AT_ONCE,
        )

    def start(self) -> None:
        """Open the database and the indexes; with ``run_jobs``, take the home and run jobs.

        Raises HomeInUse when another process runs the jobs of this home. A job that was running
        when its controller died goes on after its last chunk.
        """
        prepare_home(self.settings.home)
        if self._run_jobs:
            self._home_lock.acquire()
        self._database.upgrade()
        if self._run_jobs:
            self._jobs.expire_own(self._owner_prefix)
            for index_prefix in self._known_prefixes():
                self._open(index_prefix)
            self._runner.start()
            self._verifier.start()

    def _known_prefixes(self) -> list[Path]:
        """Return the indexes of the catalog, and the default one, which a new database lacks."""
        known = [index.index_prefix for index in self._catalog.list_indexes()]
        default = self.settings.effective_index_prefix
        return known if default in known or not os.path.lexists(default) else [*known, default]

    def _open(self, index_prefix: Path) -> None:
        # An index whose share is away or damaged must not keep the others from being served.
        # Whoever asks it is told why, and so is readiness.
        try:
            self._publisher.reconcile(index_prefix)
        except ImagedexError as error:
            _log.error("index_not_opened", index_prefix=str(index_prefix), error=str(error))
        else:
            self._refresh_if_served(index_prefix)

    def _refresh_if_served(self, index_prefix: Path) -> None:
        """Serve the current generation where this process can; whoever asks is told why not."""
        try:
            self._queries.refresh(index_prefix)
        except ImagedexError as error:
            _log.error("index_not_opened", index_prefix=str(index_prefix), error=str(error))

    def warm(self) -> None:
        """Load the text encoder in the background, and encode and search once with it.

        A server does so when it starts, so that no query pays for it.
        """
        self._warming = threading.Thread(target=self.readiness, name="warm-up")
        self._warming.start()

    def keep_schedules(self) -> None:
        """Submit backups and rebuilds at the times of the settings, from now on."""
        self._scheduler.start()

    def _schedules(self) -> list[Schedule]:
        settings = self.settings
        wanted = {
            "backup": (settings.backup.schedule, self._backup_requests),
            "rebuild": (settings.indexing.rebuild_schedule, self._rebuild_requests),
            "snapshot": (settings.snapshots.schedule, self.snapshots.scheduled),
        }
        return [
            Schedule(name, CronTimes(cron, settings.time_zone), requests)
            for name, (cron, requests) in wanted.items()
            if cron
        ]

    def _backup_requests(self) -> list[NewJob]:
        index = self._catalog.ensure_index(self.settings.effective_index_prefix)
        return [
            NewJob(
                index_id=index.index_id,
                kind=JobKind.BACKUP,
                request={},
                priority=Priority.NORMAL,
                dedupe_key=JobKind.BACKUP.value,
                runs_again=False,
            )
        ]

    def _rebuild_requests(self) -> list[NewJob]:
        return [
            new_rebuild(index.index_id, index.index_prefix, only_if_changed=True)
            for index in self._catalog.list_indexes()
            if index.generation > 0
        ]

    def finish_upkeep(self) -> None:
        """Wait for the rebuilds that this process has begun or is about to; not for one that fails.

        Nor for a change of model, which can take hours: it goes on with the next process.

        For a process that ends after its job, so that they are not put off each time.
        """
        while any(
            job.kind.lane is Lane.UPKEEP
            and job.kind is not JobKind.CHANGE_MODEL
            and job.error is None
            for index in self._catalog.list_indexes()
            for job in map(self._jobs.get, self._jobs.active_job_ids(index.index_id))
        ):
            time.sleep(_UPKEEP_POLL_SECONDS)

    def close(self) -> None:
        """Stop running jobs (they resume after their last chunk) and give everything back."""
        self._scheduler.close()
        self._runner.close()
        self._engine.close()
        self._thumbnails.close()
        self._pictures.close()
        self._verifier.close()
        if self._warming is not None:
            # Not before the jobs: loading a large model, or a share that hangs, must not keep
            # them running.
            self._warming.join()
        self._database.close()
        self._home_lock.release()

    def query(self, text: str, *, top_k: int = 10, index_prefix: str | None = None) -> QueryAnswer:
        """Answer the plainest query: one text, the first page."""
        return self.search(Query.of_text(text, top_k), index_prefix=index_prefix)

    def search(
        self, query: Query, *, cursor: str | None = None, index_prefix: str | None = None
    ) -> QueryAnswer:
        """Answer a query from the current generation of an index, or give its next page."""
        prefix = self._locations.resolve(index_prefix)
        answer = self._queries.answer(prefix, query, cursor)
        if answer.generation == 0:
            self._require_new(prefix)
            if isinstance(self.model, AbsentModel):
                self.model.refuse()  # Nothing was encoded, so nobody has said it yet.
        return answer

    def read_picture(self, data: bytes, *, index_prefix: str | None = None) -> PictureTerm:
        """Return what stands for a picture in a query to an index, given its file's bytes."""
        model = self._model_of(self._locations.resolve(index_prefix))
        return self._pictures.of(model).read(data)

    def _require_new(self, index_prefix: Path) -> None:
        """Raise StorageError when an index that holds nothing is known to have held something."""
        index = self._catalog.get_index(index_prefix)
        if index is not None and index.generation > 0:
            raise missing_index(index_prefix, index.generation)

    def thumbnail(self, image_id: str, *, size: int, index_prefix: str | None = None) -> bytes:
        """Return a JPEG of an indexed image, at most ``size`` pixels a side. Raises NotFound."""
        index = self._catalog.get_index(self._locations.resolve(index_prefix))
        entry = self._catalog.get_image(index.index_id, image_id) if index is not None else None
        if entry is None:
            raise NotFound(f"There is no image {image_id!r} in this index.")
        return self._thumbnails.jpeg(entry.image_path, size=size)

    def readiness(self) -> dict[str, str]:
        """Return each check by name: ``ok`` or why it is not. Encodes and searches for real.

        Whoever can reach the server may ask, so a reason names no path; the log has it whole.
        """
        checks = {
            "database": lambda: self.indexing.list_jobs(status=None, limit=1, cursor=None),
            "search": self._check_search,
        }
        return {name: _outcome(name, check) for name, check in checks.items()}

    def _check_search(self) -> None:
        prefix = self.settings.effective_index_prefix
        if self._queries.check(prefix) == 0:
            self._require_new(prefix)


def _outcome(name: str, check: Callable[[], object]) -> str:
    try:
        check()
    except ModelNotInstalled as error:
        _log.warning("not_ready", check=name, error=str(error))
        return str(error)  # It names no path, and says what helps.
    except ImagedexError as error:
        _log.error("not_ready", check=name, error=str(error))
        return f"{type(error).__name__}: see the server's log"
    return "ok"


class _LazyTextEncoder:
    """A text encoder that loads its model at the first text, once, whichever thread brings it."""

    def __init__(self, model: EmbeddingModel, *, threads: int) -> None:
        self._model = model
        self._threads = threads
        self._lock = threading.Lock()
        self._encoder: TextEncoder | None = None

    def encode_texts(self, texts: Sequence[str]) -> EncodedTexts:
        encoder = self._encoder
        if encoder is None:
            with self._lock:
                if self._encoder is None:
                    self._encoder = self._model.load_text_encoder(threads=self._threads)
                encoder = self._encoder
        return encoder.encode_texts(texts)


class _TextEncoders:
    """The text encoders in use, one for each model; one that nobody uses is let go."""

    def __init__(self, *, threads: int) -> None:
        self._threads = threads
        self._lock = threading.Lock()
        self._encoders: WeakValueDictionary[str, _LazyTextEncoder] = WeakValueDictionary()

    def of(self, model: EmbeddingModel) -> TextEncoder:
        with self._lock:
            encoder = self._encoders.get(model.fingerprint)
            if encoder is None:
                encoder = _LazyTextEncoder(model, threads=self._threads)
                self._encoders[model.fingerprint] = encoder
            return encoder


class _PictureReaders:
    """What reads pictures for queries: one for each model that an index was asked in."""

    def __init__(self, *, limits: DecodeLimits, threads: int) -> None:
        self._limits = limits
        self._threads = threads
        self._lock = threading.Lock()
        self._readers: dict[str, PictureReader] = {}

    def of(self, model: EmbeddingModel) -> PictureReader:
        with self._lock:
            reader = self._readers.get(model.fingerprint)
            if reader is None:
                reader = PictureReader(model, limits=self._limits, threads=self._threads)
                self._readers[model.fingerprint] = reader
            return reader

    def close(self) -> None:
        with self._lock:
            for reader in self._readers.values():
                reader.close()


def _search_threads(settings: Settings) -> int:
    # Containers and taskset allow fewer cores than the machine has.
    return settings.search.threads or len(os.sched_getaffinity(0))


def choose_model(settings: Settings) -> EmbeddingModel:
    """Return the model that the settings name, not loaded yet. Raises ModelError."""
    return _named_model(settings, settings.model, settings.embedding.precision)


def model_to_serve(settings: Settings) -> EmbeddingModel:
    """Return the model that the settings name, even if it is a known one without its files.

    An index of it can be served all the same: to load either half is what fails then, with
    ModelNotInstalled. Raises ModelError.
    """
    return _model_or_its_description(settings, settings.model, settings.embedding.precision)


def stored_space(settings: Settings, name: str) -> EmbeddingModel:
    """Return the model of this name as the old scripts ran it: in float32, installed or not.

    Raises ModelError for one of which nothing is known.
    """
    return _model_or_its_description(settings, name, Precision.FP32)


def _model_or_its_description(
    settings: Settings, name: str, precision: Precision
) -> EmbeddingModel:
    try:
        return _named_model(settings, name, precision)
    except ModelNotInstalled:
        model = absent_model(name, precision=precision, reduced_decoding=settings.decoding.reduced)
        if model is None:
            raise
        return model


def _named_model(settings: Settings, name: str, precision: Precision) -> EmbeddingModel:
    return find_model(
        name,
        store=ModelStore(settings.models_directory),
        precision=precision,
        runtime=settings.embedding.runtime,
        reduced_decoding=settings.decoding.reduced,
    )


def _make_engine(settings: Settings) -> Engine:
    return DaskLocalEngine(
        workers=settings.indexing.workers,
        threads_per_worker=settings.indexing.threads_per_worker,
        log_dir=settings.home / "logs",
    )


def decode_limits(settings: Settings) -> DecodeLimits:
    """Return what one picture may cost."""
    decoding = settings.decoding
    return DecodeLimits(
        max_file_bytes=decoding.max_file_bytes,
        max_pixels=decoding.max_pixels,
        timeout_seconds=decoding.timeout_seconds,
        memory_bytes=decoding.memory_bytes,
    )


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


def build_application(settings: Settings, *, run_jobs: bool) -> Application:
    """Wire the services of one process; nothing is opened before ``start``.

    ``run_jobs`` says whether this process owns the home and runs its jobs; a process that only
    asks (search, statistics, keys) leaves that to the server.
    """
    return Application(settings, run_jobs=run_jobs)
