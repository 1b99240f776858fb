"""What every ``IndexFiles`` must do, checked against a plain dictionary.

``IndexFilesMachine`` runs random sequences of operations; a test module gives it files to work
on and hands it to Hypothesis::

    class DirectoryMachine(IndexFilesMachine):
        def reopen(self, index_prefix: Path) -> IndexFiles:
            return DirectoryIndexFiles(index_prefix)

    TestDirectory = DirectoryMachine.TestCase
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from numpy.typing import NDArray

from imagedex.core.errors import LeaseLost
from imagedex.core.images import FileStamp, ImageFacts, RowLocation
from imagedex.segments import Commit, IndexFiles, Manifest, Merge, OpenGeneration, Part

VectorArray = NDArray[np.float32]

MODEL_NAME = "tiny"
FINGERPRINT = "tiny-1"


def unit_vectors(count: int, dim: int, *, seed: int = 0) -> VectorArray:
    """Return random vectors: float32, shape (count, dim), rows of unit length."""
    vectors = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    unit: VectorArray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def make_facts(image_path: str, *, version: int = 0) -> ImageFacts:
    """Return what would be recorded of an image; versions differ in hash and stamp."""
    return ImageFacts(
        image_path=image_path,
        content_hash=f"{version:064x}",
        stamp=FileStamp(size=1000 + version, mtime_ns=1_700_000_000_000_000_000 + version),
        width=640,
        height=480,
        format="JPEG",
    )


def make_part(images: Mapping[str, VectorArray], *, dim: int, version: int = 0) -> Part:
    """Return a part of these images and their vectors, in the mapping's order."""
    vectors = np.array(list(images.values()), dtype=np.float32).reshape(len(images), dim)
    return Part(tuple(make_facts(path, version=version) for path in images), vectors, FINGERPRINT)


def make_commit(
    current: Manifest | None,
    *,
    dim: int,
    parts: Iterable[str] = (),
    removed: Iterable[RowLocation] = (),
    fence: int = 1,
    job_id: str = "job",
    chunks: tuple[int, ...] = (),
) -> Commit:
    """Return a commit upon a generation."""
    return Commit(
        expected_generation=current.generation if current else 0,
        fence=fence,
        model_name=MODEL_NAME,
        fingerprint=FINGERPRINT,
        dim=dim,
        job_id=job_id,
        chunks=chunks,
        parts=tuple(parts),
        removed=tuple(removed),
    )


def publish_images(
    files: IndexFiles,
    images: Mapping[str, VectorArray],
    *,
    gone: Sequence[str] = (),
    fence: int = 1,
    chunk: int = 0,
    version: int = 0,
) -> Manifest:
    """Bring images in, those that are there already as changed, and paths out, in one commit."""
    current = files.current()
    dim = current.dim if current else len(next(iter(images.values())))
    where = live_locations(files, current)
    removed = [where[path] for path in (*images, *gone) if path in where]
    parts = []
    if images:
        part = make_part(images, dim=dim, version=version)
        parts.append(files.write_part("job", chunk, fence, part))
    commit = make_commit(
        current, dim=dim, parts=parts, removed=removed, fence=fence, chunks=(chunk,)
    )
    return files.commit(commit)


def live_locations(files: IndexFiles, manifest: Manifest | None) -> dict[str, RowLocation]:
    """Return where each image lies, from the files alone; no image may lie in two places."""
    if manifest is None:
        return {}
    gone = files.read_tombstones(manifest.tombstones)
    where: dict[str, RowLocation] = {}
    for segment in manifest.segments:
        for location, facts in files.read_facts(segment):
            if location not in gone:
                assert facts.image_path not in where, f"{facts.image_path} is there twice"
                where[facts.image_path] = location
    return where


def expected_hits(
    images: Mapping[str, VectorArray], vector: VectorArray, k: int
) -> list[tuple[str, float]]:
    """Return paths and scores of the best images, by the simplest means."""
    scored = [
        (path, float(np.float32((stored.astype(np.float64) * vector.astype(np.float64)).sum())))
        for path, stored in images.items()
    ]
    return sorted(scored, key=lambda hit: (-hit[1], hit[0]))[:k]


def found_hits(generation: OpenGeneration, vector: VectorArray, k: int) -> list[tuple[str, float]]:
    """Return paths and scores of a search."""
    (hits,) = generation.search(vector[np.newaxis], [k])
    assert hits.scores.dtype == np.float32
    return list(zip(hits.image_paths, hits.scores.tolist(), strict=True))


def assert_holds(
    files: IndexFiles, images: Mapping[str, VectorArray], *, dim: int
) -> OpenGeneration | None:
    """Check that the current generation holds these images and finds each of them once."""
    manifest = files.current()
    if manifest is None:
        assert not images
        return None
    assert manifest.images == len(images)
    assert live_locations(files, manifest).keys() == images.keys()
    generation = files.open(manifest, None)
    for vector in unit_vectors(2, dim, seed=len(images)):
        for k in (1, 3, len(images) + 1):
            assert found_hits(generation, vector, k) == expected_hits(images, vector, k)
    return generation


# A small pool makes changed images, duplicates and ties frequent.
_DIM = 4
_POOL = [f"/photos/{name}.jpg" for name in "abcdefghijklmnop"]
_VECTORS = unit_vectors(5, _DIM, seed=7)
_PATHS = st.lists(st.sampled_from(_POOL), unique=True, max_size=8)
_CHOICES = st.dictionaries(
    st.sampled_from(_POOL), st.integers(0, len(_VECTORS) - 1), max_size=8, min_size=1
)


class IndexFilesMachine(RuleBasedStateMachine):
    """Random adds, changes, removals, merges, sweeps and reopenings; subclasses say of what."""

    def __init__(self) -> None:
        super().__init__()
        self._directory = Path(tempfile.mkdtemp(prefix="imagedex-machine-"))
        self._files = self.reopen(self._directory / "index")
        self._images: dict[str, VectorArray] = {}
        self._fence = 1
        self._chunk = 0
        self._open: OpenGeneration | None = None
        self._held: tuple[OpenGeneration, dict[str, VectorArray]] | None = None

    def reopen(self, index_prefix: Path) -> IndexFiles:
        """Return the files below this prefix, as a new process would open them."""
        raise NotImplementedError

    @rule(choices=_CHOICES, gone=_PATHS)
    def publish(self, choices: dict[str, int], gone: list[str]) -> None:
        """Add and change some images and remove others."""
        images = {path: _VECTORS[choice] for path, choice in choices.items()}
        away = [path for path in gone if path in self._images and path not in images]
        self._chunk += 1
        before = self._files.current()
        manifest = publish_images(
            self._files, images, gone=away, fence=self._fence, chunk=self._chunk
        )
        assert manifest == self._files.current()
        assert manifest.generation > (before.generation if before else 0)
        self._images.update(images)
        for path in away:
            del self._images[path]

    @precondition(lambda self: self._images)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        """Remove images and add none."""
        gone = data.draw(st.lists(st.sampled_from(sorted(self._images)), unique=True))
        publish_images(self._files, {}, gone=gone, fence=self._fence)
        for path in gone:
            del self._images[path]

    @rule(data=st.data())
    def merge(self, data: st.DataObject) -> None:
        """Make one segment of some, which changes nothing that can be found."""
        manifest = self._files.current()
        if manifest is None:
            return
        numbers = [segment.number for segment in manifest.segments]
        some = data.draw(st.sets(st.sampled_from(numbers)) if numbers else st.just(set()))
        merged = self._files.merge(Merge(self._fence, "merge", frozenset(some)))
        assert merged.images == manifest.images == len(self._images)
        left = [segment for segment in merged.segments if segment.number in numbers]
        assert left == [segment for segment in manifest.segments if segment.number not in some]
        assert len(merged.segments) <= len(left) + 1
        gone = self._files.read_tombstones(merged.tombstones)
        assert {location.segment for location in gone} <= {segment.number for segment in left}

    @rule(choices=_CHOICES)
    def leave_a_part(self, choices: dict[str, int]) -> None:
        """Write a part that nobody commits."""
        images = {path: _VECTORS[choice] for path, choice in choices.items()}
        self._files.write_part("abandoned", 0, self._fence, make_part(images, dim=_DIM))

    @rule()
    def take_over(self) -> None:
        """Let another owner publish, after which the old one may not."""
        self._fence += 1
        manifest = self._files.current()
        if manifest is None:
            return
        self._files.commit(make_commit(manifest, dim=_DIM, fence=self._fence))
        published = self._files.current()
        assert published is not None
        stale = self._fence - 1
        numbers = frozenset(segment.number for segment in published.segments)
        self._require_stale(
            lambda: self._files.commit(make_commit(published, dim=_DIM, fence=stale))
        )
        self._require_stale(lambda: self._files.merge(Merge(stale, "merge", numbers)))

    def _require_stale(self, publish: Callable[[], Manifest]) -> None:
        try:
            publish()
        except LeaseLost:
            return
        raise AssertionError("A stale owner published.")

    @rule(keep=st.booleans())
    def sweep(self, keep: bool) -> None:
        """Delete what is not needed; a second time there is nothing left to delete."""
        jobs = ["abandoned"] if keep else []
        self._files.sweep(keep_jobs=jobs)
        assert self._files.sweep(keep_jobs=jobs) == 0

    @rule()
    def start_again(self) -> None:
        """Go on as a new process would."""
        self._files = self.reopen(self._directory / "index")
        self._open = None

    @rule()
    def hold(self) -> None:
        """Keep a reader on the present generation, whatever comes."""
        if self._open is not None:
            self._held = (self._open, dict(self._images))

    @invariant()
    def the_current_generation_is_what_was_published(self) -> None:
        """Compare the files with the model, opened afresh and with shared segments."""
        assert_holds(self._files, self._images, dim=_DIM)
        manifest = self._files.current()
        if manifest is not None:
            self._open = self._files.open(manifest, self._open)
            self._compare(self._open, self._images)

    @invariant()
    def a_held_generation_never_changes(self) -> None:
        """A reader goes on finding what it found, though files were deleted."""
        if self._held is not None:
            self._compare(*self._held)

    def _compare(self, generation: OpenGeneration, images: dict[str, VectorArray]) -> None:
        for k in (2, len(_POOL)):
            expected = expected_hits(images, _VECTORS[0], k)
            assert found_hits(generation, _VECTORS[0], k) == expected

    def teardown(self) -> None:
        """Delete the files."""
        self._open = self._held = None
        shutil.rmtree(self._directory)
