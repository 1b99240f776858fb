"""Which chunk a worker gets, and what becomes of those whose workers die."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagedex.core.errors import EngineError, WorkerLost
from imagedex.core.images import FailureReason
from imagedex.engine import WorkerInfo, WorkerStatus
from imagedex.indexing.chunk import ChunkTask, WorkerSetup
from imagedex.indexing.pace import Pace
from imagedex.indexing.supply import MAX_LOSSES_IN_A_ROW, Need, PlannedSupply, Run
from imagedex.ingest import DecodeLimits, ImageRoots
from imagedex.jobs import Chunk, ChunkAction, ChunkDone, ChunkState
from imagedex.testing.colour_model import ColourModel
from unit.indexing.test_pace import Rates

MODEL = ColourModel()
SETUP = WorkerSetup(MODEL, ImageRoots([]), DecodeLimits(), batch_images=32)


@dataclass
class Plan:
    """The chunks of a job as a store would keep them, and a supply of them."""

    sizes: Sequence[int]
    rates: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        paths = iter(f"/{number:05}" for number in range(sum(self.sizes)))
        self.chunks = {
            number: tuple(next(paths) for _ in range(size))
            for number, size in enumerate(self.sizes)
        }
        self.all_paths = [path for some in self.chunks.values() for path in some]
        self.next_number = len(self.chunks)
        self.pace = Pace(
            Rates({(slot, MODEL.fingerprint): rate for slot, rate in self.rates.items()}),
            target_seconds=3,
        )
        self.supply = PlannedSupply(
            [self._chunk(number) for number in self.chunks],
            pace=self.pace,
            split=self._split,
            fingerprint=lambda: MODEL.fingerprint,
            task_of=lambda chunk: ChunkTask(
                SETUP, Path("/index"), "job", chunk.number, 1, chunk.image_paths
            ),
        )

    def _chunk(self, number: int) -> Chunk:
        return Chunk(number, ChunkAction.EMBED, ChunkState.PLANNED, self.chunks[number], None)

    def _split(self, number: int, sizes: Sequence[int]) -> list[Chunk]:
        paths = self.chunks.pop(number)
        assert sum(sizes) == len(paths)
        assert min(sizes) > 0
        pieces = []
        for size in sizes:
            self.chunks[self.next_number], paths = paths[:size], paths[size:]
            pieces.append(self._chunk(self.next_number))
            self.next_number += 1
        return pieces

    def take(self, worker: WorkerInfo, need: Need | None = None, workers: int = 1) -> ChunkTask:
        task = self.supply.take(need or Need(), worker, workers=workers)
        assert task is not None
        return task

    def end(self, task: ChunkTask, worker: WorkerInfo, *, began: float, ended: float) -> None:
        self.supply.done(task, made_of(task), Run(worker, began, ended))


def made_of(task: ChunkTask) -> ChunkDone:
    return ChunkDone(task.number, "part", len(task.image_paths), (), "w", "host", seconds=math.inf)


def worker(slot: str) -> WorkerInfo:
    return WorkerInfo(slot, "host", WorkerStatus.IDLE, slot=slot)


def loss(*, alone: bool = True, in_hand: tuple[str, ...] = (), begun: bool = True) -> WorkerLost:
    return WorkerLost(
        "killed", worker_id="w", host="east", has_begun=begun, was_alone=alone, in_hand=in_hand
    )


def test_a_chunk_is_cut_to_what_its_worker_does_in_the_time_that_is_wished() -> None:
    plan = Plan([256] * 8, {"fast": 200.0, "middle": 40.0, "slow": 1.0})
    assert len(plan.take(worker("fast")).image_paths) == 256
    assert len(plan.take(worker("middle")).image_paths) == 120
    assert len(plan.take(worker("slow")).image_paths) == 8
    assert len(plan.take(worker("unknown")).image_paths) == 16
    # What was left of the chunk that was cut is 112, which is as good as 120.
    assert len(plan.take(worker("middle")).image_paths) == 112
    assert len(plan.take(worker("fast")).image_paths) == 256


def test_what_is_left_near_the_end_is_shared_among_all_workers() -> None:
    plan = Plan([256, 44], {"fast": 1000.0})
    sizes = []
    while plan.supply.needs():
        sizes.append(len(plan.take(worker("fast"), workers=4).image_paths))
    assert sum(sizes) == 300
    assert max(sizes) <= 57  # A share of 38, and no more than half of it again.
    assert sizes[-1] <= 12


def test_a_worker_that_is_twenty_times_as_fast_does_nearly_twenty_times_the_images() -> None:
    plan = Plan([256] * 160)
    rates = {"fast": 100.0, "slow": 5.0}
    done: Counter[str] = Counter()
    clock = dict.fromkeys(rates, 0.0)
    while plan.supply.needs():
        slot = min(clock, key=lambda slot: clock[slot])
        task = plan.take(worker(slot), workers=2)
        began = clock[slot]
        clock[slot] += len(task.image_paths) / rates[slot]
        done[slot] += len(task.image_paths)
        plan.end(task, worker(slot), began=began, ended=clock[slot])
    assert done.total() == 160 * 256
    assert done["fast"] / done["slow"] >= 18
    assert abs(clock["fast"] - clock["slow"]) < 5


def test_a_chunk_whose_worker_died_comes_before_all_others_and_the_second_time_alone() -> None:
    plan = Plan([10, 10, 10])
    first = plan.take(worker("a"))
    plan.supply.lost(first, loss(alone=False))
    assert plan.supply.needs() == [Need()]
    again = plan.take(worker("a"))
    assert again.number == first.number
    plan.supply.lost(again, loss(alone=False))
    assert plan.supply.needs() == [Need(), Need(alone=True, apart_from="east")]
    assert plan.take(worker("a")).number != first.number
    assert plan.take(worker("b"), Need(alone=True)).number == first.number


def test_a_chunk_that_had_not_begun_when_its_worker_died_is_as_innocent_as_before() -> None:
    plan = Plan([10])
    for _ in range(MAX_LOSSES_IN_A_ROW - 1):
        plan.supply.lost(plan.take(worker("a")), loss(begun=False))
    assert plan.supply.needs() == [Need()]
    with pytest.raises(EngineError, match="came back undone") as caught:
        plan.supply.lost(plan.take(worker("a")), loss(begun=False))
    assert caught.value.retryable


def _run_with_poison(
    plan: Plan, poison: set[str], *, in_hand_images: int = 0
) -> tuple[Counter[str], dict[str, FailureReason], int]:
    """Run all chunks on two workers; return what was embedded, what failed, and the deaths."""
    embedded: Counter[str] = Counter()
    failed: dict[str, FailureReason] = {}
    deaths = 0

    def record(dones: Sequence[ChunkDone]) -> None:
        for done in dones:
            assert done.part is None
            for failure in done.failures:
                failed[failure.image_path] = failure.reason
            del plan.chunks[done.number]

    while needs := plan.supply.needs():
        need = needs[-1]
        task = plan.take(worker("a"), need, workers=2)
        deadly = next((path for path in task.image_paths if path in poison), None)
        if deadly is None:
            embedded.update(task.image_paths)
            plan.end(task, worker("a"), began=0, ended=1)
            del plan.chunks[task.number]
        else:
            deaths += 1
            place = task.image_paths.index(deadly)
            start = place - place % in_hand_images if in_hand_images else 0
            in_hand = task.image_paths[start : start + in_hand_images]
            plan.supply.lost(task, loss(alone=need.alone, in_hand=in_hand))
        record(plan.supply.verdicts())
    record(plan.supply.verdicts(is_end=True))
    assert not plan.chunks
    return embedded, failed, deaths


@pytest.mark.parametrize(("in_hand_images", "most_deaths"), [(0, 9), (32, 8)])
def test_a_poison_image_is_found_by_few_deaths_and_all_others_are_embedded_once(
    in_hand_images: int, most_deaths: int
) -> None:
    for poison in ("/00000", "/00100", "/00255"):
        plan = Plan([256, 256])
        embedded, failed, deaths = _run_with_poison(plan, {poison}, in_hand_images=in_hand_images)
        assert failed == {poison: FailureReason.WORKER_CRASHED}
        assert embedded == Counter({p: 1 for p in plan.all_paths if p != poison})
        assert deaths <= most_deaths


@given(
    sizes=st.lists(st.integers(1, 300), min_size=1, max_size=4),
    poison_places=st.sets(st.integers(0, 1199), max_size=3),
    in_hand_images=st.sampled_from([0, 1, 7, 32]),
)
def test_whatever_is_poison_each_image_ends_once(
    sizes: list[int], poison_places: set[int], in_hand_images: int
) -> None:
    plan = Plan([*sizes, 40])
    poison = {plan.all_paths[place] for place in poison_places if place < sum(sizes)}
    embedded, failed, _ = _run_with_poison(plan, poison, in_hand_images=in_hand_images)
    assert set(failed) == poison
    assert embedded == Counter({p: 1 for p in plan.all_paths if p not in poison})


def test_when_every_chunk_is_deadly_it_is_the_machine_that_fails() -> None:
    plan = Plan([256] * 4)
    with pytest.raises(EngineError, match="one after the other") as caught:
        _run_with_poison(plan, set(plan.all_paths))
    assert caught.value.retryable
    assert not plan.supply.verdicts()


def test_nothing_is_held_against_an_image_before_any_worker_was_seen_to_work() -> None:
    plan = Plan([1])
    for _ in range(2):
        plan.supply.lost(plan.take(worker("a"), plan.supply.needs()[0]), loss())
    assert plan.supply.needs() == []
    assert plan.supply.verdicts() == []
    with pytest.raises(EngineError, match="one after the other"):
        plan.supply.verdicts(is_end=True)


def test_a_single_image_is_judged_where_the_model_has_worked_before() -> None:
    plan = Plan([1], {"a": 40.0})
    for _ in range(2):
        plan.supply.lost(plan.take(worker("a"), plan.supply.needs()[0]), loss())
    (done,) = plan.supply.verdicts(is_end=True)
    (failure,) = done.failures
    assert (failure.image_path, failure.reason) == ("/00000", FailureReason.WORKER_CRASHED)
    assert failure.detail == (
        "2 worker processes ended while they had this image and nothing else: killed"
    )
    assert (done.worker_id, done.host, done.indexed) == ("w", "east", 0)
