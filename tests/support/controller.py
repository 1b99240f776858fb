"""A controller in this process: real database, files, decoders and search; workers are threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from imagedex.catalog import SqlCatalog
from imagedex.core.errors import ModelError
from imagedex.core.fingerprints import ModelIdentity
from imagedex.embedding import EmbeddingModel
from imagedex.embedding.runtimes import Precision
from imagedex.engine import Engine
from imagedex.indexing import (
    ChunkTask,
    IndexFlow,
    IndexingService,
    IndexLocations,
    IndexTurns,
    MergePolicy,
    Merger,
    ModelChanger,
    Pace,
    Publisher,
    RemovalRules,
    WorkerSetup,
    embed_chunk,
)
from imagedex.ingest import DecodeLimits, IgnoreRules, ImageRoots
from imagedex.jobs import (
    ChunkAction,
    Job,
    JobKind,
    JobRunner,
    JobStatus,
    PlannedChunk,
    SqlJobStore,
)
from imagedex.models import IndexModels
from imagedex.search import QueryService, QueryServices
from imagedex.segments import DirectoryIndexFiles, IndexFiles, SnapshotDirectory, publish_lock
from imagedex.testing.colour_model import ColourModel
from imagedex.testing.thread_engine import ThreadEngine
from imagedex.upkeep import SnapshotJobs, Snapshots
from support.empty_database import database_in
from support.structures import files_with_faiss


def _unknown_model(name: str, _precision: Precision) -> EmbeddingModel:
    raise ModelError(f"There is no model {name!r}.")


class Controller:
    """What ``imagedex.app`` wires, with the tiny colour model."""

    def __init__(
        self,
        folder: Path,
        *,
        model: ColourModel | None = None,
        chunk_images: int = 3,
        batch_images: int = 2,
        commit_images: int = 6,
        commit_seconds: float = 3600,
        engine: Engine | None = None,
        merge_policy: MergePolicy = MergePolicy(),  # noqa: B008 - It is immutable.
        files_of: Callable[[Path], IndexFiles] = files_with_faiss,
        ignore: Sequence[str] = (),
        removal: RemovalRules | None = None,
        settle_seconds: float = 0.0,
        shared_from_images: int = 1000,
        find_model: Callable[[str, Precision], EmbeddingModel] | None = None,
    ) -> None:
        self.photos = folder / "photos"
        self.photos.mkdir(exist_ok=True)
        self.prefix = folder / "index"
        self.database_file = folder / "imagedex.db"
        self.database = database_in(self.database_file)
        self.model = model or ColourModel()
        self.catalog = SqlCatalog(self.database)
        self.jobs = SqlJobStore(self.database)
        self.engine = engine or ThreadEngine()
        self.models = IndexModels(self.model, find_model or _unknown_model)
        self.queries = QueryServices(
            files_of=files_of,
            model_of=self.models.of,
            make=lambda model: QueryService(
                files_of=files_of,
                encoder=model.load_text_encoder(threads=1),
                model_name=model.name,
                fingerprint=model.fingerprint,
                dim=model.dim,
                cache_entries=16,
            ),
        )
        self.announced: Callable[[Path], object] = self.queries.refresh
        roots = ImageRoots([self.photos])
        turns = IndexTurns()
        pace = Pace(self.jobs, target_seconds=3.0)
        self.publisher = Publisher(
            image_roots=roots,
            database=self.database,
            catalog=self.catalog,
            jobs=self.jobs,
            model=self.model,
            files_of=files_of,
            on_published=lambda prefix: self.announced(prefix),
            turns=turns,
        )
        self.setup = WorkerSetup(
            model=self.model, image_roots=roots, limits=DecodeLimits(), batch_images=batch_images
        )
        merger = Merger(self.publisher, self.jobs, merge_policy)
        flow = IndexFlow(
            database=self.database,
            catalog=self.catalog,
            jobs=self.jobs,
            engine=self.engine,
            publisher=self.publisher,
            merger=merger,
            setup=self.setup,
            model_of=self.model_of,
            chunk_images=chunk_images,
            commit_images=commit_images,
            commit_seconds=commit_seconds,
            files_of=files_of,
            ignore=IgnoreRules(tuple(ignore)),
            removal=removal or RemovalRules(),
            settle_seconds=settle_seconds,
            shared_from_images=shared_from_images,
            pace=pace,
        )
        self.snapshots = SnapshotJobs(
            catalog=self.catalog,
            jobs=self.jobs,
            locations=IndexLocations(self.prefix, ()),
            turns=turns,
            snapshots_of=lambda prefix: Snapshots(
                files_of(prefix),
                SnapshotDirectory(prefix.with_name(f"{prefix.name}.snapshots")),
                database=self.database,
                catalog=self.catalog,
                jobs=self.jobs,
                hold_index=publish_lock(prefix).held,
                turns=turns,
                on_published=self.queries.refresh,
            ),
            kept=2,
        )
        changer = ModelChanger(
            database=self.database,
            catalog=self.catalog,
            jobs=self.jobs,
            engine=self.engine,
            publisher=self.publisher,
            turns=turns,
            setup=self.setup,
            files_of=files_of,
            find=self.models.named,
            warm=self.queries.warm,
            cool=self.queries.cool,
            on_published=lambda prefix: self.announced(prefix),
            chunk_images=chunk_images,
            max_share=(removal or RemovalRules()).max_share,
            pace=pace,
        )
        self.runner = JobRunner(
            self.jobs,
            {
                JobKind.FULL: flow.run,
                JobKind.INCREMENTAL: flow.run,
                JobKind.REBUILD: merger.rebuild,
                JobKind.SNAPSHOT: self.snapshots.run_snapshot,
                JobKind.RESTORE: self.snapshots.run_restore,
                JobKind.CHANGE_MODEL: changer.run,
            },
            owner="test:1",
        )
        self.indexing = IndexingService(
            catalog=self.catalog,
            jobs=self.jobs,
            workers=self.engine.workers,
            model=self.model,
            find_model=self.models.named,
            image_roots=roots,
            locations=IndexLocations(self.prefix, ()),
            files_of=files_of,
            pace=pace,
        )

    def model_of(self, index_prefix: Path) -> EmbeddingModel:
        """Return the model of an index."""
        manifest = DirectoryIndexFiles(index_prefix).current()
        if manifest is None:
            return self.models.of(None)
        return self.models.of(ModelIdentity(manifest.model_name, manifest.fingerprint))

    def close(self) -> None:
        """End the job, the workers and the database."""
        self.runner.close()
        self.engine.close()
        self.database.close()

    def paint(self, name: str, colour: str) -> str:
        """Write a picture of one colour; return its path."""
        path = self.photos / name
        Image.new("RGB", (12, 12), colour).save(path)
        return str(path)

    def wait(self, job: Job) -> Job:
        """Wait until a job has ended, or asks."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            job = self.jobs.get(job.job_id)
            if job.status.is_final or job.status is JobStatus.PAUSED:
                return job
            time.sleep(0.01)
        raise AssertionError(f"The job did not end: {job}")

    def wait_for_error(self, job: Job) -> str:
        """Wait until a job has met an error; return its text."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if error := self.jobs.get(job.job_id).error:
                return error
            time.sleep(0.01)
        raise AssertionError(f"The job met no error: {self.jobs.get(job.job_id)}")

    def index(self, *, force: bool = False) -> Job:
        """Index the photos to the end."""
        job = self.wait(self.indexing.trigger(str(self.photos), force_reindex=force))
        assert job.status is JobStatus.COMPLETED, job.error
        return job

    def embed_without_publishing(self, job: Job) -> None:
        """Do what a controller does before it is killed: plan and embed, but publish nothing."""
        lease = self.jobs.lease_next("test:0")
        assert lease is not None
        paths = tuple(sorted(str(path) for path in self.photos.iterdir()))
        plan = [PlannedChunk(ChunkAction.EMBED, paths)]
        self.jobs.save_plan(lease, plan, total_images=len(paths), settled_images=0, failures=())
        task = ChunkTask(self.setup, self.prefix, job.job_id, 0, lease.fence, paths)
        self.engine.start()
        done = self.engine.submit(embed_chunk, task).result()
        with self.database.transaction() as transaction:
            self.jobs.checkpoint_embedded(transaction, lease, done)
        self.jobs.expire_own("test:")

    def plan_removal_without_publishing(self, job: Job, image_path: str) -> None:
        """Do what a controller does that goes aside after planning to remove an image."""
        lease = self.jobs.lease_next("test:0")
        while lease is not None and lease.job.job_id != job.job_id:
            self.jobs.requeue(lease, error=None, delay_seconds=0.2, count_attempt=False)
            lease = self.jobs.lease_next("test:0")
        assert lease is not None
        plan = [PlannedChunk(ChunkAction.REMOVE, (image_path,))]
        self.jobs.save_plan(lease, plan, total_images=1, settled_images=1, failures=())
        self.jobs.requeue(lease, error=None, delay_seconds=0, count_attempt=False)

    def score(self, name: str, text: str) -> float:
        """Return how well a photo fits a text."""
        answer = self.queries.query(self.prefix, text, 100)
        return next(r.score for r in answer.results if Path(r.image_path).name == name)

    def find(self, text: str, top_k: int = 100) -> list[str]:
        """Return the names of the found photos, best first."""
        answer = self.queries.query(self.prefix, text, top_k)
        return [Path(result.image_path).name for result in answer.results]

    @property
    def generation(self) -> int:
        """The number of the current generation."""
        return self.indexing.stats().generation
