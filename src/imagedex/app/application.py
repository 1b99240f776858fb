"""All services of one process, and their life: start, serve, close."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

import structlog

from imagedex.access import KeyService, SqlKeyStore
from imagedex.app.controller import Controller, Role
from imagedex.app.duty import Duty
from imagedex.app.engine import make_engine
from imagedex.app.foundations import Foundations
from imagedex.app.models import stored_space
from imagedex.app.searching import Searching
from imagedex.app.snapshots import snapshot_jobs
from imagedex.core.errors import ImagedexError, ModelNotInstalled, NotFound
from imagedex.database import HomeLock, in_use, prepare_home
from imagedex.embedding import EmbeddingModel
from imagedex.indexing import Indexing, IndexingService, missing_index
from imagedex.ingest import Thumbnailer
from imagedex.jobs import JobKind, Lane
from imagedex.legacy import LegacyService
from imagedex.models import AbsentModel
from imagedex.search import PictureTerm, Query, QueryAnswer
from imagedex.settings import Settings

_log = structlog.get_logger(__name__)

_UPKEEP_POLL_SECONDS = 0.1


class Application:
    """All services of one process, wired. Safe to call from several threads once started."""

    settings: Settings
    model: EmbeddingModel
    indexing: Indexing
    keys: KeyService

    def __init__(self, settings: Settings, *, run_jobs: bool, is_server: bool = False) -> None:
        self.settings = settings
        self._run_jobs = run_jobs
        self._is_server = is_server
        self._home_lock = HomeLock(settings.home)
        base = self._base = Foundations(settings)
        self.model = base.model
        self._searching = Searching(base)
        if run_jobs:
            # Settings that no engine can be made of are told now, not once the jobs are owned.
            make_engine(base)
        self._thumbnails = Thumbnailer(roots=base.image_roots, limits=base.limits)
        self.snapshots = snapshot_jobs(base, self._searching)
        self._controller = Controller(
            base.ownership,
            lambda: Duty(base, self._searching, keeps_schedules=is_server),
        )
        self.indexing = IndexingService(
            catalog=base.catalog,
            jobs=base.jobs,
            workers=self._controller.workers,
            model=base.model,
            find_model=base.models.named,
            image_roots=base.image_roots,
            locations=base.locations,
            files_of=base.files_of,
            pace=base.pace,
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
        admin_key = settings.admin_key.get_secret_value() if settings.admin_key else None
        self.keys = KeyService(SqlKeyStore(base.database), admin_key=admin_key)

    def start(self) -> None:
        """Open the database and the indexes; with ``run_jobs``, take the home and run jobs.

        Raises HomeInUse when another process runs the jobs of this home, or of its database; but
        of a database that several machines share a server stands by for its owner. A job that was
        running when its controller died goes on after its last chunk.
        """
        prepare_home(self.settings.home)
        if self._run_jobs:
            self._home_lock.acquire()
        self._base.database.upgrade()
        if self._run_jobs:
            if not self._controller.start(may_stand_by=self._is_server):
                raise in_use(self._base.database)
            self._searching.start()

    def warm(self) -> None:
        """Load the text encoder in the background, and encode and search once with it.

        A server does so when it starts, so that no query pays for it.
        """
        self._warming = threading.Thread(target=self.readiness, name="warm-up")
        self._warming.start()

    @property
    def role(self) -> Literal["leader", "standby"]:
        """Whether this process runs the jobs of its database; another may, where it does not."""
        return "leader" if self._controller.role is Role.LEADER else "standby"

    def stalled_threads(self, patience_seconds: float) -> list[str]:
        """Return the threads that have not moved for so long and should have; never blocks."""
        return self._controller.stalled_threads(patience_seconds)

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
        self._controller.close()
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


def build_application(
    settings: Settings, *, run_jobs: bool, is_server: bool = False
) -> Application:
    """Wire the services of one process; nothing is opened before ``start``.

    ``run_jobs`` says whether this process owns the home and runs its jobs; a process that only
    asks (search, statistics, keys) leaves that to the server. A server also keeps schedules, and
    where several share a database, it stands by for the one that runs the jobs.
    """
    return Application(settings, run_jobs=run_jobs, is_server=is_server)
