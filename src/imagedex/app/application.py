"""All services of one process, and their life: start, serve, close."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import structlog

from imagedex.access import KeyService, SqlKeyStore
from imagedex.app.foundations import Foundations
from imagedex.app.models import stored_space
from imagedex.app.running import Running
from imagedex.app.schedules import schedules
from imagedex.app.searching import Searching
from imagedex.core.errors import ImagedexError, ModelNotInstalled, NotFound
from imagedex.database import HomeLock, prepare_home
from imagedex.embedding import EmbeddingModel
from imagedex.engine import DaskLocalEngine, Engine
from imagedex.indexing import Indexing, IndexingService, missing_index
from imagedex.ingest import Thumbnailer
from imagedex.jobs import JobKind, Lane, Scheduler
from imagedex.legacy import LegacyService
from imagedex.models import AbsentModel
from imagedex.search import PictureTerm, Query, QueryAnswer
from imagedex.segments import SnapshotDirectory, publish_lock
from imagedex.settings import Settings
from imagedex.upkeep import SnapshotJobs, Snapshots

_log = structlog.get_logger(__name__)

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
        base = self._base = Foundations(settings)
        self.model = base.model
        self._engine = _make_engine(settings)
        self._searching = Searching(base)
        self._thumbnails = Thumbnailer(roots=base.image_roots, limits=base.limits)
        self.snapshots = SnapshotJobs(
            catalog=base.catalog,
            jobs=base.jobs,
            locations=base.locations,
            turns=base.turns,
            snapshots_of=self._snapshots_of,
            kept=settings.snapshots.keep,
        )
        self._running = Running(base, self._searching, self.snapshots, self._engine)
        self.indexing = IndexingService(
            catalog=base.catalog,
            jobs=base.jobs,
            engine=self._engine,
            model=base.model,
            find_model=base.models.named,
            image_roots=base.image_roots,
            locations=base.locations,
            files_of=base.files_of,
        )
        self.legacy = LegacyService(
            catalog=base.catalog,
            jobs=base.jobs,
            image_roots=base.image_roots,
            locations=base.locations,
            files_of=base.files_of,
            space_of=partial(stored_space, settings),
            encoder_of=self._searching.encoder_of,
            ask=lambda text, top_k, prefix: self.query(text, top_k=top_k, index_prefix=prefix),
        )
        self._warming: threading.Thread | None = None
        self._scheduler = Scheduler(base.jobs, schedules(base, self.snapshots))
        admin_key = settings.admin_key.get_secret_value() if settings.admin_key else None
        self.keys = KeyService(SqlKeyStore(base.database), admin_key=admin_key)

    def _snapshots_of(self, index_prefix: Path) -> Snapshots:
        return Snapshots(
            self._base.files_of(index_prefix),
            SnapshotDirectory(self.settings.snapshots_of(index_prefix)),
            database=self._base.database,
            catalog=self._base.catalog,
            jobs=self._base.jobs,
            hold_index=publish_lock(index_prefix).held,
            turns=self._base.turns,
            on_published=self._searching.refresh_if_served,
        )

    def start(self) -> None:
        """Open the database and the indexes; with ``run_jobs``, take the home and run jobs.

        Raises HomeInUse when another process runs the jobs of this home. A job that was running
        when its controller died goes on after its last chunk.
        """
        prepare_home(self.settings.home)
        if self._run_jobs:
            self._home_lock.acquire()
        self._base.database.upgrade()
        if self._run_jobs:
            self._running.expire_own()
            for index_prefix in self._known_prefixes():
                self._open(index_prefix)
            self._running.start()
            self._searching.start()

    def _known_prefixes(self) -> list[Path]:
        """Return the indexes of the catalog, and the default one, which a new database lacks."""
        known = [index.index_prefix for index in self._base.catalog.list_indexes()]
        default = self.settings.effective_index_prefix
        return known if default in known or not os.path.lexists(default) else [*known, default]

    def _open(self, index_prefix: Path) -> None:
        # An index whose share is away or damaged must not keep the others from being served.
        # Whoever asks it is told why, and so is readiness.
        try:
            self._running.publisher.reconcile(index_prefix)
        except ImagedexError as error:
            _log.error("index_not_opened", index_prefix=str(index_prefix), error=str(error))
        else:
            self._searching.refresh_if_served(index_prefix)

    def warm(self) -> None:
        """Load the text encoder in the background, and encode and search once with it.

        A server does so when it starts, so that no query pays for it.
        """
        self._warming = threading.Thread(target=self.readiness, name="warm-up")
        self._warming.start()

    def keep_schedules(self) -> None:
        """Submit backups and rebuilds at the times of the settings, from now on."""
        if self._base.database.is_shared and self.settings.backup.schedule:
            _log.warning(
                "database_not_backed_up",
                database=self._base.database.where,
                remedy="use pg_dump, and set IMAGEDEX_BACKUP__SCHEDULE to nothing",
            )
        self._scheduler.start()

    def finish_upkeep(self) -> None:
        """Wait for the rebuilds that this process has begun or is about to; not for one that fails.

        Nor for a change of model, which can take hours: it goes on with the next process.

        For a process that ends after its job, so that they are not put off each time.
        """
        while any(
            job.kind.lane is Lane.UPKEEP
            and job.kind is not JobKind.CHANGE_MODEL
            and job.error is None
            for index in self._base.catalog.list_indexes()
            for job in map(self._base.jobs.get, self._base.jobs.active_job_ids(index.index_id))
        ):
            time.sleep(_UPKEEP_POLL_SECONDS)

    def close(self) -> None:
        """Stop running jobs (they resume after their last chunk) and give everything back."""
        self._scheduler.close()
        self._running.close()
        self._engine.close()
        self._thumbnails.close()
        self._searching.close()
        if self._warming is not None:
            # Not before the jobs: loading a large model, or a share that hangs, must not keep
            # them running.
            self._warming.join()
        self._base.database.close()
        self._home_lock.release()

    def query(self, text: str, *, top_k: int = 10, index_prefix: str | None = None) -> QueryAnswer:
        """Answer the plainest query: one text, the first page."""
        return self.search(Query.of_text(text, top_k), index_prefix=index_prefix)

    def search(
        self, query: Query, *, cursor: str | None = None, index_prefix: str | None = None
    ) -> QueryAnswer:
        """Answer a query from the current generation of an index, or give its next page."""
        prefix = self._base.locations.resolve(index_prefix)
        answer = self._searching.queries.answer(prefix, query, cursor)
        if answer.generation == 0:
            self._require_new(prefix)
            if isinstance(self.model, AbsentModel):
                self.model.refuse()  # Nothing was encoded, so nobody has said it yet.
        return answer

    def read_picture(self, data: bytes, *, index_prefix: str | None = None) -> PictureTerm:
        """Return what stands for a picture in a query to an index, given its file's bytes."""
        return self._searching.read_picture(data, self._base.locations.resolve(index_prefix))

    def _require_new(self, index_prefix: Path) -> None:
        """Raise StorageError when an index that holds nothing is known to have held something."""
        index = self._base.catalog.get_index(index_prefix)
        if index is not None and index.generation > 0:
            raise missing_index(index_prefix, index.generation)

    def thumbnail(self, image_id: str, *, size: int, index_prefix: str | None = None) -> bytes:
        """Return a JPEG of an indexed image, at most ``size`` pixels a side.

        Raises NotFound for an image that the index has not; and what a query raises for an index
        that cannot be opened.
        """
        prefix = self._base.locations.resolve(index_prefix)
        image_path = self._searching.queries.path_of(prefix, image_id)
        if image_path is None:
            raise NotFound(f"There is no image {image_id!r} in this index.")
        return self._thumbnails.jpeg(image_path, size=size)

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
        if self._searching.queries.check(prefix) == 0:
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


def _make_engine(settings: Settings) -> Engine:
    return DaskLocalEngine(
        workers=settings.indexing.workers,
        threads_per_worker=settings.indexing.threads_per_worker,
        log_dir=settings.home / "logs",
    )


def build_application(settings: Settings, *, run_jobs: bool) -> Application:
    """Wire the services of one process; nothing is opened before ``start``.

    ``run_jobs`` says whether this process owns the home and runs its jobs; a process that only
    asks (search, statistics, keys) leaves that to the server.
    """
    return Application(settings, run_jobs=run_jobs)
