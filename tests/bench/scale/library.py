"""An index of made-up vectors with its catalog, in a home that a server can be started on."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.scale.stand_in import LookedUpTexts, StandIn
from imagedex.catalog import SqlCatalog
from imagedex.database import Database, prepare_home
from imagedex.indexing import IndexTurns, Publisher
from imagedex.ingest import ImageRoots
from imagedex.jobs import (
    ChunkAction,
    ChunkDone,
    JobKind,
    JobStatus,
    NewJob,
    PlannedChunk,
    Priority,
    SqlJobStore,
)
from imagedex.search import QueryService
from imagedex.segments import (
    Commit,
    DirectoryIndexFiles,
    IvfPolicy,
    Manifest,
    Merge,
    Part,
)
from imagedex.segments._parquet import read_vectors
from support.vectors import clustered_blocks, made_up_facts

_ROWS_OF_A_PART = 50_000
_JOB = "idx_20250101_000000_0000"
_TEXT_LIKENESS = 0.3


def query_vectors(rows: int, dim: int, count: int) -> NDArray[np.float32]:
    """Return unit vectors that are not in an index of so many ``rows``: float32, (count, dim).

    The first half are like its pictures, the others resemble those no more than texts do in CLIP
    (a cosine of 0.3).
    """
    (queries,) = clustered_blocks(count, dim, seed=99, of=rows, rows=count)
    noise = np.random.default_rng(98).standard_normal((count - count // 2, dim), dtype=np.float32)
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    queries[count // 2 :] *= _TEXT_LIKENESS
    queries[count // 2 :] += (1 - _TEXT_LIKENESS**2) ** 0.5 * noise
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    return queries


class Library:
    """The index, in this process, wired as a controller wires it."""

    def __init__(self, home: Path, *, rows: int, dim: int) -> None:
        self.home = home
        self.prefix = home / "index"
        self.rows = rows
        self.dim = dim
        self.files = DirectoryIndexFiles(self.prefix)
        prepare_home(home)
        self.database = Database(f"sqlite:///{home / 'imagedex.db'}")
        self.database.upgrade()
        self.catalog = SqlCatalog(self.database)
        self.jobs = SqlJobStore(self.database, lease_seconds=600)
        self.asked = query_vectors(rows, dim, 1000)
        self.queries = QueryService(
            files_of=lambda _: self.files,
            encoder=LookedUpTexts(self.asked),
            model_name=StandIn(dim).name,
            fingerprint=StandIn(dim).fingerprint,
            dim=dim,
            cache_entries=1,
        )
        self._publisher = Publisher(
            database=self.database,
            catalog=self.catalog,
            jobs=self.jobs,
            model=StandIn(dim),
            image_roots=ImageRoots([home]),
            files_of=lambda _: self.files,
            on_published=self.queries.refresh,
            turns=IndexTurns(),
        )

    def close(self) -> None:
        """Close the database."""
        self.database.close()

    @property
    def manifest(self) -> Manifest:
        """What is published."""
        manifest = self.files.current()
        assert manifest is not None
        return manifest

    def make(self) -> None:
        """Publish all vectors, in segments without inverted lists, unless they are there."""
        files = DirectoryIndexFiles(self.prefix, ivf=IvfPolicy(min_rows=10**9))
        manifest = files.current()
        first = manifest.images if manifest else 0
        if first >= self.rows:
            return
        assert first == 0, f"{self.prefix} holds an index of {first} images; use another folder."
        for number, block in enumerate(clustered_blocks(self.rows, self.dim, rows=_ROWS_OF_A_PART)):
            part = Part(made_up_facts(first, len(block)), block, StandIn(self.dim).fingerprint)
            name = files.write_part(_JOB, number, 1, part)
            files.commit(self._commit(files.current(), number, name))
            files.sweep(keep_jobs=[])
            first += len(block)
        self._publisher.reconcile(self.prefix)

    def merge(self) -> None:
        """Make one segment of all, with inverted lists where it is large."""
        numbers = frozenset(segment.number for segment in self.manifest.segments)
        self.files.merge(Merge(self.manifest.fence, _JOB, numbers))
        self._publisher.reconcile(self.prefix)
        self.files.sweep(keep_jobs=[])

    def _commit(self, current: Manifest | None, number: int, part: str) -> Commit:
        model = StandIn(self.dim)
        return Commit(
            expected_generation=current.generation if current else 0,
            fence=1,
            model_name=model.name,
            fingerprint=model.fingerprint,
            dim=model.dim,
            job_id=_JOB,
            chunks=(number,),
            parts=(part,),
            removed=(),
        )

    def append(self, count: int, *, number: int) -> tuple[float, int]:
        """Add vectors as a job does; return seconds until one is found, and bytes written."""
        (vectors,) = clustered_blocks(count, self.dim, seed=1000 + number, of=self.rows, rows=count)
        facts = made_up_facts(10_000_000 + number * count, count)
        paths = tuple(fact.image_path for fact in facts)
        index = self.catalog.ensure_index(self.prefix)
        self.jobs.submit(
            NewJob(index.index_id, JobKind.INCREMENTAL, {}, Priority.NORMAL, f"append {number}")
        )
        lease = self.jobs.lease_next("bench")
        assert lease is not None
        plan = [PlannedChunk(ChunkAction.EMBED, paths)]
        self.jobs.save_plan(lease, plan, total_images=count, settled_images=0, failures=())
        self.asked[-1] = vectors[count // 2]
        written = written_bytes()
        started = time.perf_counter()
        made = Part(facts, vectors, StandIn(self.dim).fingerprint)
        part = self.files.write_part(lease.job.job_id, 0, lease.fence, made)
        done = ChunkDone(0, part, count, (), "bench", "here", 0.0)
        self._publisher.publish_done(lease, self.prefix, [done])
        answer = self.queries.query(self.prefix, f"{len(self.asked) * (2 + number) - 1}", 1)
        seconds = time.perf_counter() - started
        assert answer.results[0].image_path == paths[count // 2]
        written = written_bytes() - written
        self.jobs.finish(lease, JobStatus.COMPLETED, None)
        return seconds, written

    def exact_scores(
        self, queries: NDArray[np.float32], k: int, *, rows: int | None = None
    ) -> NDArray[np.float32]:
        """Return the best scores of all images in float32, best first: shape (n, k).

        With ``rows`` of the oldest so many.
        """
        best = np.full((len(queries), k), -1, dtype=np.float32)
        left = self.manifest.images if rows is None else rows
        for segment in self.manifest.segments:
            for vectors in read_vectors(self.prefix / segment.parquet.name):
                block = vectors[:left]
                left -= len(block)
                scores = np.concatenate([best, queries @ block.T], axis=1)
                best = -np.sort(-np.partition(scores, -k, axis=1)[:, -k:], axis=1)
        return best


def written_bytes() -> int:
    """Return the bytes that this process has given to system calls to be written."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("wchar"))
