"""Which chunk a worker gets, how large it is, and what becomes of chunks whose workers die.

Chunks are planned large and cut when a worker has a seat: to a few seconds of that worker's
measured rate, and near the end to a share of what is left, so that all workers end together (guided
self-scheduling, Polychronopoulos and Kuck 1987, https://doi.org/10.1109/TC.1987.5009495).

A chunk whose worker dies runs again before all others; when a second one dies, it runs alone on
a worker. Once it is sure that the chunk is why, it is cut into pieces, which run alone as well, and
so on to the single image on which workers die: that one is recorded as failed, and nothing else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from imagedex.core.errors import EngineError, WorkerLost
from imagedex.core.images import FailureReason, ImageFailure
from imagedex.engine import WorkerInfo
from imagedex.indexing.chunk import ChunkTask
from imagedex.indexing.pace import MIN_CHUNK_IMAGES, Pace
from imagedex.ingest import stamp_now
from imagedex.jobs import Chunk, ChunkDone

_WHOLE = 1.5
"""A chunk of up to so many times the images that a worker should have is not cut."""

_PIECES = 8
"""Of a chunk that is why workers die. The death of a worker costs seconds, a small piece
milliseconds: with eight pieces a poison image of 256 is found by three deaths."""

_DEATHS = 2
"""Of workers under the same chunk, the last of which had nothing else, before it is taken to be
why: one may have been killed by hand, or for want of memory."""

MAX_DEATHS_IN_A_ROW = 10
"""Without a chunk done between; with more it is the machine that fails and not a chunk."""

MAX_LOSSES_IN_A_ROW = 20
"""Of chunks whose host went away or could not do its part, without a chunk done between."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Need:
    """What seat the next chunk wants."""

    alone: bool = False
    apart_from: str | None = None  # A host, if there is another.


@dataclass(frozen=True, slots=True)
class Run:
    """How long a worker had a chunk, by the monotonic clock."""

    worker: WorkerInfo
    began_at: float
    ended_at: float


class ChunkSupply(Protocol):
    """The chunks of one run of a job. For the thread that runs it."""

    def needs(self) -> Sequence[Need]:
        """Return what seats are wanted now: one for chunks in general, one for a suspect."""
        ...

    def take(self, need: Need, worker: WorkerInfo, *, workers: int) -> ChunkTask | None:
        """Return a chunk for a worker, one of so many; None when nothing is left for it."""
        ...

    def done(self, task: ChunkTask, done: ChunkDone, run: Run) -> None:
        """Take note of a chunk that was embedded."""
        ...

    def lost(self, task: ChunkTask, loss: WorkerLost) -> None:
        """Have a chunk run again, or in pieces, whose worker has died.

        Raises EngineError when it must be the workers that fail.
        """
        ...

    def verdicts(self, *, is_end: bool = False) -> list[ChunkDone]:
        """Return the chunks of one image each that are now known to be why workers die.

        At the end, when nothing else is left, EngineError is raised instead when it may be the
        workers that fail.
        """
        ...


@dataclass(slots=True)
class _Record:
    """What speaks against a chunk."""

    deaths: int = 0
    is_suspect: bool = False  # It runs alone.
    is_aside: bool = False  # It was not what the worker had in hand, as the worker said last.
    host: str | None = None  # Of the last death.


@dataclass(frozen=True, slots=True)
class _Accused:
    chunk: Chunk
    deaths: int
    loss: WorkerLost


@dataclass(slots=True)
class _Queues:
    """The chunks that wait."""

    whole: deque[Chunk]  # As they were planned.
    rests: deque[Chunk] = field(default_factory=deque)  # Of those that were cut.
    again: deque[Chunk] = field(default_factory=deque)  # A worker has died under them.
    suspects: deque[Chunk] = field(default_factory=deque)

    @property
    def has_ordinary(self) -> bool:
        return bool(self.again or self.rests or self.whole)

    @property
    def images(self) -> int:
        queues = (self.whole, self.rests, self.again, self.suspects)
        return sum(len(chunk.image_paths) for queue in queues for chunk in queue)


class PlannedSupply:
    """The planned chunks of a job.

    Parameters
    ----------
    chunks
        They, by number.
    split
        Puts pieces of these sizes in the place of a planned chunk; see ``JobStore.split_chunk``.
    fingerprint
        Returns that of the model which the next chunk is for.
    task_of
        Makes of a chunk what travels to a worker.
    """

    def __init__(
        self,
        chunks: Iterable[Chunk],
        *,
        pace: Pace,
        split: Callable[[int, Sequence[int]], list[Chunk]],
        fingerprint: Callable[[], str],
        task_of: Callable[[Chunk], ChunkTask],
    ) -> None:
        self._queues = _Queues(deque(chunks))
        self._images_left = self._queues.images
        self._pace = pace
        self._split = split
        self._fingerprint = fingerprint
        self._task_of = task_of
        self._out: dict[int, Chunk] = {}
        self._records: dict[int, _Record] = {}
        self._accused: list[_Accused] = []
        self._deaths_in_a_row = 0
        self._losses_in_a_row = 0
        self._has_embedded = False

    def needs(self) -> Sequence[Need]:
        """Return what seats are wanted now."""
        needs = [Need()] if self._queues.has_ordinary else []
        if self._queues.suspects:
            host = self._record_of(self._queues.suspects[0]).host
            needs.append(Need(alone=True, apart_from=host))
        return needs

    def take(self, need: Need, worker: WorkerInfo, *, workers: int) -> ChunkTask | None:
        """Return a chunk for a worker, cut to what it should have."""
        queues = self._queues
        if need.alone:
            chunk = queues.suspects.popleft() if queues.suspects else None
        elif queues.again:
            chunk = queues.again.popleft()
        else:
            chunk = self._cut_for(worker, workers)
        if chunk is None:
            return None
        self._images_left -= len(chunk.image_paths)
        self._out[chunk.number] = chunk
        return self._task_of(chunk)

    def done(self, task: ChunkTask, done: ChunkDone, run: Run) -> None:
        """Take note of a chunk that was embedded, and of how long it took."""
        self._out.pop(task.number)
        self._records.pop(task.number, None)
        self._deaths_in_a_row = 0
        self._losses_in_a_row = 0
        self._has_embedded = self._has_embedded or done.indexed > 0
        self._pace.record(
            run.worker.slot,
            task.setup.model.fingerprint,
            images=len(task.image_paths),
            own_seconds=done.seconds,
            began_at=run.began_at,
            ended_at=run.ended_at,
        )
        self._pace.store()

    def lost(self, task: ChunkTask, loss: WorkerLost) -> None:
        """Have a chunk run again, or in pieces, whose worker has died."""
        chunk = self._out.pop(task.number)
        record = self._record_of(chunk)
        self._images_left += len(chunk.image_paths)
        if not loss.has_begun:
            self._losses_in_a_row += 1
            if self._losses_in_a_row >= MAX_LOSSES_IN_A_ROW:
                raise _failing_hosts(self._losses_in_a_row, loss)
            (self._queues.suspects if record.is_suspect else self._queues.again).appendleft(chunk)
            return
        record.deaths += 1
        record.host = loss.host
        self._count_death(loss)
        of_many = len(chunk.image_paths) > 1
        # A piece of a chunk for which two have died needs no second death of its own to be cut.
        if loss.was_alone and (record.deaths >= _DEATHS or (record.is_suspect and of_many)):
            if of_many:
                self._cut_to_pieces(chunk, record, loss)
            else:
                self._images_left -= 1
                self._accused.append(_Accused(chunk, record.deaths, loss))
        elif record.deaths >= _DEATHS or record.is_suspect:
            record.is_suspect = True
            self._queues.suspects.append(chunk)
        else:
            self._queues.again.append(chunk)

    def verdicts(self, *, is_end: bool = False) -> list[ChunkDone]:
        """Return chunks of one image that are why workers die, once workers are seen to work."""
        if not self._accused:
            return []
        if not self._has_embedded and not (is_end and self._pace.knows(self._fingerprint())):
            if is_end:
                raise _failing_workers(len(self._accused), self._accused[-1].loss)
            return []
        accused, self._accused = self._accused, []
        return [_verdict(one) for one in accused]

    def _cut_for(self, worker: WorkerInfo, workers: int) -> Chunk | None:
        if not self._queues.has_ordinary:
            return None
        rate_wish = self._pace.wish(worker.slot, self._fingerprint())
        # Each worker has two chunks: what is left is for twice as many seats.
        share = max(MIN_CHUNK_IMAGES, -(-self._images_left // (2 * max(1, workers))))
        wish = min(rate_wish, share)
        chunk = self._next_chunk(wish)
        size = len(chunk.image_paths)
        if size <= _WHOLE * wish:
            return chunk
        piece, rest = self._split(chunk.number, [wish, size - wish])
        self._queues.rests.appendleft(rest)
        return piece

    def _next_chunk(self, wish: int) -> Chunk:
        """Take rests first, but for a worker that would find them small."""
        rests, whole = self._queues.rests, self._queues.whole
        if not whole or (rests and len(rests[0].image_paths) * _WHOLE >= wish):
            return rests.popleft()
        return whole.popleft()

    def _count_death(self, loss: WorkerLost) -> None:
        self._deaths_in_a_row += 1
        if self._deaths_in_a_row >= MAX_DEATHS_IN_A_ROW:
            raise _failing_workers(self._deaths_in_a_row, loss)

    def _cut_to_pieces(self, chunk: Chunk, record: _Record, loss: WorkerLost) -> None:
        """Look for what workers die of in the pieces, or in those of the batch that was in hand."""
        # What was said last can be older than what the worker died of, and is believed once.
        in_hand = () if record.is_aside else loss.in_hand
        start, end = _span(chunk.image_paths, in_hand)
        before, after = start, len(chunk.image_paths) - end
        sizes = _even_sizes(end - start, _PIECES)
        wanted = [before, *sizes, after]
        pieces = iter(self._split(chunk.number, [size for size in wanted if size]))
        _log.warning(
            "chunk_cut_to_pieces",
            chunk=chunk.number,
            images=len(chunk.image_paths),
            suspected=end - start,
            error=str(loss),
        )
        self._records.pop(chunk.number, None)
        for place, size in enumerate(wanted):
            if not size:
                continue
            piece = next(pieces)
            if 0 < place <= len(sizes):
                self._records[piece.number] = _Record(is_suspect=True, host=record.host)
                self._queues.suspects.append(piece)
            else:
                self._records[piece.number] = _Record(deaths=1, is_aside=True, host=record.host)
                self._queues.again.append(piece)

    def _record_of(self, chunk: Chunk) -> _Record:
        return self._records.setdefault(chunk.number, _Record())


def _span(image_paths: Sequence[str], in_hand: Sequence[str]) -> tuple[int, int]:
    """Return from where to where a chunk holds what was in hand; all of it when that is nothing."""
    suspected = set(in_hand)
    places = [place for place, path in enumerate(image_paths) if path in suspected]
    if not places:
        return 0, len(image_paths)
    return places[0], places[-1] + 1


def _even_sizes(images: int, pieces: int) -> list[int]:
    pieces = min(pieces, images)
    return [images // pieces + (place < images % pieces) for place in range(pieces)]


def _verdict(accused: _Accused) -> ChunkDone:
    (path,) = accused.chunk.image_paths
    failure = ImageFailure(
        path,
        FailureReason.WORKER_CRASHED,
        f"{accused.deaths} worker processes ended while they had this image and nothing else: "
        f"{accused.loss}",
        stamp_now(path),
    )
    _log.warning("image_crashes_workers", image_path=path, error=str(accused.loss))
    return ChunkDone(
        number=accused.chunk.number,
        part=None,
        indexed=0,
        failures=(failure,),
        worker_id=accused.loss.worker_id,
        host=accused.loss.host,
        seconds=0.0,
    )


def _failing_hosts(losses: int, loss: WorkerLost) -> EngineError:
    error = EngineError(
        f"{losses} chunks came back undone, one after the other, since their hosts went away or "
        f"could not do their part; see the states of the hosts in the log. The last one: {loss}"
    )
    error.__cause__ = loss
    return error


def _failing_workers(deaths: int, loss: WorkerLost) -> EngineError:
    error = EngineError(
        f"{deaths} workers died one after the other and no chunk was done between, so it may be "
        f"the machine that fails and not the images; see the workers' logs. The last one: {loss}"
    )
    error.__cause__ = loss
    return error
