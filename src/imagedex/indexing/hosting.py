"""What a worker on another machine makes sure of: that it sees what the controller sees.

What is missing on one host may be there on the others, so it fails no image and no job: the chunk
raises UnfitWorker, and runs elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from imagedex.core.errors import ImagedexError, ModelError, StorageError, UnfitWorker
from imagedex.core.images import FailureReason, ImageFailure
from imagedex.embedding import EmbeddingModel, SupportsRelocation
from imagedex.engine import WorkerContext
from imagedex.ingest import ImageRoots
from imagedex.segments import require_place

_SAMPLES_OF_A_ROOT = 3
_ENTRIES_LOOKED_AT = 200
_MTIME_TOLERANCE_NS = 2_000_000_000  # Some shares tell times by two seconds.
_ABSENCE = frozenset({FailureReason.VANISHED, FailureReason.UNREADABLE})


@dataclass(frozen=True, slots=True)
class Sample:
    """A file of an image root as the controller sees it."""

    path: str
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class HostNeeds:
    """What a host must have before it gets chunks."""

    image_roots: ImageRoots  # As the controller names them.
    samples: tuple[Sample, ...]
    model: EmbeddingModel
    fingerprint: str  # Of the controller's files of the model.


def needs_of(image_roots: ImageRoots, model: EmbeddingModel) -> HostNeeds:
    """Return what a host must have, going by what the controller sees now."""
    samples = [sample for root in image_roots.directories for sample in _samples_of(root)]
    return HostNeeds(image_roots, tuple(samples), model, model.fingerprint)


def check_host(context: WorkerContext, needs: HostNeeds) -> None:
    """Raise UnfitWorker when the host of this worker lacks an image root or the model."""
    for root in sorted({needs.image_roots.root_of(sample.path) for sample in needs.samples}):
        if not needs.image_roots.placed(context.paths).is_present(root):
            raise _lacks_root(context, root)
    for sample in needs.samples:
        _require_same_file(context, sample)
    local_model(context, needs.model, needs.fingerprint)


def local_prefix(context: WorkerContext, index_prefix: Path, place: str | None) -> Path:
    """Return where an index lies on this machine; raises UnfitWorker when it does not."""
    here = Path(context.paths.local(str(index_prefix)))
    if context.is_remote and place is not None:
        with writing_here(context):
            require_place(here, place)
    return here


def local_model(context: WorkerContext, model: EmbeddingModel, fingerprint: str) -> EmbeddingModel:
    """Return a model as this machine has it; raises UnfitWorker when it has another or none."""
    if not context.is_remote or not isinstance(model, SupportsRelocation):
        return model
    try:
        here = model.relocated(context.paths)
        found = here.fingerprint
    except ModelError as error:
        raise UnfitWorker(
            f"Host {context.host} lacks the model {model.name!r}: {error} Copy the model's "
            "directory there, or name where it lies by `models` in the inventory."
        ) from error
    if found != fingerprint:
        raise UnfitWorker(
            f"Host {context.host} has other files of the model {model.name!r}: they are {found}, "
            f"but {fingerprint} is needed; copy the controller's files there."
        )
    return here


def require_present_roots(
    context: WorkerContext, failures: Sequence[ImageFailure], image_roots: ImageRoots
) -> None:
    """Raise UnfitWorker when images may be missing because their root is, here."""
    if not context.is_remote:
        return
    roots = {
        image_roots.find_root(failure.image_path)
        for failure in failures
        if failure.reason in _ABSENCE
    }
    for root in sorted(root for root in roots if root is not None):
        if not image_roots.placed(context.paths).is_present(root):
            raise _lacks_root(context, root)


@contextmanager
def writing_here(context: WorkerContext) -> Iterator[None]:
    """Turn a failure of the index's storage into UnfitWorker on a remote host."""
    try:
        yield
    except StorageError as error:
        if not context.is_remote:
            raise
        raise UnfitWorker(
            f"Host {context.host} cannot use the storage of the index: {error} If it is mounted "
            "elsewhere there, say so by `paths` in the inventory."
        ) from error


def _samples_of(root: str) -> Iterable[Sample]:
    """Return a few files that lie directly in a root, or one level below it."""
    try:
        with os.scandir(root) as entries:
            found = sorted(islice(entries, _ENTRIES_LOOKED_AT), key=lambda entry: entry.name)
            files = [entry for entry in found if entry.is_file(follow_symlinks=False)]
            chosen = files[:_SAMPLES_OF_A_ROOT] or found[:_SAMPLES_OF_A_ROOT]
            return [_sample(entry) for entry in chosen]
    except OSError:
        return []  # What the controller does not see either says nothing of a host.


def _sample(entry: os.DirEntry[str]) -> Sample:
    status = entry.stat(follow_symlinks=False)
    # The time of a directory changes whenever something comes into it.
    if entry.is_file(follow_symlinks=False):
        return Sample(entry.path, status.st_size, status.st_mtime_ns)
    return Sample(entry.path, -1, -1)


def _require_same_file(context: WorkerContext, sample: Sample) -> None:
    here = context.paths.local(sample.path)
    try:
        status = os.lstat(here)
    except OSError as error:
        found = error.strerror or str(error)
    else:
        is_near = abs(status.st_mtime_ns - sample.mtime_ns) < _MTIME_TOLERANCE_NS
        if sample.size < 0 or (status.st_size == sample.size and is_near):
            return
        found = f"another file, of {status.st_size} bytes"
    raise UnfitWorker(
        f"Host {context.host} does not see the controller's {sample.path!r}: under {here!r} there "
        f"is {found}. Mount the same share there, or correct `paths` in the inventory."
    )


def _lacks_root(context: WorkerContext, root: str) -> ImagedexError:
    here = context.paths.local(root)
    mapped = f" (for {root!r})" if here != root else ""
    return UnfitWorker(
        f"Host {context.host} sees nothing in {here!r}{mapped}: mount the share there, or correct "
        "`paths` in the inventory."
    )
