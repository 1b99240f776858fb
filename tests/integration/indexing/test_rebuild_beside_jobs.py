"""A rebuild builds its segment while other jobs of the index publish."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from imagedex.core.errors import Conflict, StorageError
from imagedex.core.images import RowLocation
from imagedex.database import Transaction
from imagedex.indexing import (
    IndexTurns,
    MergePolicy,
    Reconciler,
    merging,
    new_rebuild,
    publishing,
)
from imagedex.jobs import Job, JobKind, JobStatus, Priority
from imagedex.segments import DirectoryIndexFiles, Manifest, Merge
from imagedex.segments.merging import PreparedMerge
from imagedex.upkeep import Doctor
from support.controller import Controller
from support.gates import Gate


class _GatedFiles(DirectoryIndexFiles):
    """Files whose merges are held up when their segment is built."""

    gate: Gate

    @contextmanager
    def prepare_merge(
        self, merge: Merge, checkpoint: Callable[[], None]
    ) -> Iterator[PreparedMerge]:
        with super().prepare_merge(merge, checkpoint) as prepared:
            self.gate.pass_through()
            checkpoint()
            yield prepared


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open()


def _start(folder: Path, request: pytest.FixtureRequest, **options: Any) -> Controller:
    controller = Controller(folder, **options)
    request.addfinalizer(controller.close)
    controller.runner.start()
    return controller


@pytest.fixture
def controller(tmp_path: Path, gate: Gate, request: pytest.FixtureRequest) -> Controller:
    """A controller whose rebuilds wait at the gate, with photos 0 to 5 in two segments."""

    def files_of(index_prefix: Path) -> DirectoryIndexFiles:
        files = _GatedFiles(index_prefix)
        files.gate = gate
        return files

    controller = _start(tmp_path, request, files_of=files_of)
    for number in range(5):
        controller.paint(f"{number}.png", "green")
    controller.index()
    _notify(controller, controller.paint("5.png", "red"))
    return controller


def _notify(controller: Controller, *paths: str) -> None:
    job = controller.wait(controller.indexing.notify(paths)[0])
    assert job.status is JobStatus.COMPLETED, job.error


def _remove(controller: Controller, name: str) -> None:
    path = controller.photos / name
    path.unlink()
    _notify(controller, str(path))


def _complete(controller: Controller, job: Job) -> None:
    job = controller.wait(job)
    assert job.status is JobStatus.COMPLETED, job.error


def _manifest(controller: Controller) -> Manifest:
    manifest = DirectoryIndexFiles(controller.prefix).current()
    assert manifest is not None
    return manifest


def _require_sound(controller: Controller) -> None:
    diagnosis = Doctor(
        DirectoryIndexFiles(controller.prefix),
        database=controller.database,
        catalog=controller.catalog,
        jobs=controller.jobs,
    ).examine()
    assert diagnosis.findings == ()


def test_a_catalog_filled_anew_takes_no_row_that_a_rebuild_brought_in_dead(
    controller: Controller, gate: Gate
) -> None:
    rebuild = controller.indexing.rebuild()
    gate.wait_until_reached()
    _notify(controller, controller.paint("0.png", "blue"))
    changed = _manifest(controller).segments[-1].number
    gate.open()
    _complete(controller, rebuild)
    for name in ("6.png", "7.png"):
        _notify(controller, controller.paint(name, "pink"))
    # A merge of other segments writes the tombstones of all under its own generation.
    before = _manifest(controller)
    others = frozenset(entry.number for entry in before.segments if entry.number > changed)
    main = max(before.segments, key=lambda entry: entry.rows).number
    small = others - {main}
    assert len(small) == 2
    DirectoryIndexFiles(controller.prefix).merge(Merge(before.fence, "idx_merge", small))
    reconciler = Reconciler(
        database=controller.database,
        catalog=controller.catalog,
        jobs=controller.jobs,
        files_of=DirectoryIndexFiles,
        on_published=lambda _prefix: None,
        turns=IndexTurns(),
    )
    reconciler.fill_anew(controller.prefix)
    _require_sound(controller)


def test_jobs_publish_while_a_rebuild_builds_and_all_that_they_did_stands(
    controller: Controller, gate: Gate
) -> None:
    rebuild = controller.indexing.rebuild()
    gate.wait_until_reached()
    before = controller.generation
    _notify(controller, controller.paint("new.png", "blue"))
    assert controller.find("blue", 1) == ["new.png"]
    _remove(controller, "0.png")
    _notify(controller, controller.paint("1.png", "red"))
    controller.paint("scanned.png", "green")
    controller.index()
    assert controller.generation == before + 4
    # Each of these jobs has swept, and what the rebuild builds is no orphan.
    _require_sound(controller)
    assert controller.jobs.get(rebuild.job_id).status is JobStatus.RUNNING
    gate.open()
    _complete(controller, rebuild)
    names = ["1.png", "2.png", "3.png", "4.png", "5.png", "new.png", "scanned.png"]
    assert sorted(controller.find("any")) == names
    assert sorted(controller.find("red", 2)) == ["1.png", "5.png"]
    assert controller.generation == before + 5
    assert [entry.rows for entry in _manifest(controller).segments] == [1, 1, 1, 6]
    _require_sound(controller)
    # The rows that moved can be changed and removed, as can those that were not merged.
    _notify(controller, controller.paint("2.png", "blue"), controller.paint("new.png", "red"))
    _remove(controller, "3.png")
    _remove(controller, "scanned.png")
    assert controller.find("blue", 1) == ["2.png"]
    assert sorted(controller.find("any")) == [*names[:2], "4.png", "5.png", "new.png"]
    assert controller.index().total_images == 5
    _require_sound(controller)


def test_a_rebuild_that_is_cancelled_while_it_builds_changes_nothing(
    controller: Controller, gate: Gate
) -> None:
    rebuild = controller.indexing.rebuild()
    gate.wait_until_reached()
    before = controller.generation
    controller.indexing.cancel(rebuild.job_id)
    gate.open()
    assert controller.wait(rebuild).status is JobStatus.CANCELLED
    assert controller.generation == before
    assert not list((controller.prefix / "parts").rglob("merge-*"))
    _complete(controller, controller.indexing.rebuild())
    assert len(_manifest(controller).segments) == 1


def test_a_second_rebuild_is_the_first_one(controller: Controller, gate: Gate) -> None:
    rebuild = controller.indexing.rebuild()
    gate.wait_until_reached()
    assert controller.indexing.rebuild().job_id == rebuild.job_id
    gate.open()
    _complete(controller, rebuild)
    with pytest.raises(Conflict, match="completed without failures"):
        controller.indexing.retry(rebuild.job_id)


@pytest.fixture
def in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the catalog be told of one row at a time."""
    monkeypatch.setattr(publishing, "_MOVES_AT_ONCE", 1)


@pytest.mark.usefixtures("in_pieces")
def test_images_change_and_go_while_the_catalog_is_told_where_rows_lie(
    controller: Controller, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate.open()
    half_way = Gate()
    real = controller.publisher._record_some_moves
    told = 0

    def hold_up(*arguments: Any) -> bool:
        nonlocal told
        told += 1
        if told == 3:
            half_way.pass_through()
        return real(*arguments)

    monkeypatch.setattr(controller.publisher, "_record_some_moves", hold_up)
    rebuild = controller.indexing.rebuild()
    half_way.wait_until_reached()
    index = controller.catalog.get_index(controller.prefix)
    assert index is not None
    assert index.is_moving
    # Rows of which the catalog knows the new place, and rows of which it does not.
    for number in (0, 4):
        _remove(controller, f"{number}.png")
    for number in (1, 5):
        _notify(controller, controller.paint(f"{number}.png", "blue"))
    assert sorted(controller.find("any")) == ["1.png", "2.png", "3.png", "5.png"]
    half_way.open()
    _complete(controller, rebuild)
    assert sorted(controller.find("blue", 2)) == ["1.png", "5.png"]
    _require_sound(controller)


@pytest.mark.usefixtures("in_pieces")
@pytest.mark.parametrize("told", [0, 1, 4, 6])
def test_a_crash_while_the_catalog_is_told_neither_loses_nor_doubles(
    controller: Controller,
    gate: Gate,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    told: int,
) -> None:
    gate.open()
    real = controller.catalog.move
    calls = 0

    def die(
        transaction: Transaction, index_id: int, moves: Sequence[tuple[RowLocation, RowLocation]]
    ) -> None:
        nonlocal calls
        if calls == told:
            raise StorageError("From here on nothing is written.")
        calls += 1
        real(transaction, index_id, moves)

    monkeypatch.setattr(controller.catalog, "move", die)
    rebuild = controller.indexing.rebuild()
    assert "nothing is written" in controller.wait_for_error(rebuild)
    controller.indexing.cancel(rebuild.job_id)
    controller.close()
    again = _start(tmp_path, request)
    again.publisher.reconcile(again.prefix)
    _require_sound(again)
    _remove(again, "2.png")
    _notify(again, again.paint("3.png", "blue"))
    assert again.find("blue", 1) == ["3.png"]
    assert sorted(again.find("any")) == ["0.png", "1.png", "3.png", "4.png", "5.png"]
    _require_sound(again)


def test_a_crash_before_the_catalog_hears_of_a_rebuild_and_of_what_came_meanwhile(
    controller: Controller,
    gate: Gate,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rebuild = controller.indexing.rebuild()
    gate.wait_until_reached()
    _notify(controller, controller.paint("1.png", "blue"))
    _remove(controller, "2.png")
    with controller.database.transaction() as transaction:
        # As a database is that was restored from a backup, or that lost its last transactions.
        transaction.connection.exec_driver_sql("UPDATE indexes SET generation = 1")

    def die(*_: object, **__: object) -> None:
        raise StorageError("From here on nothing is written.")

    monkeypatch.setattr(controller.catalog, "begin_move", die)
    monkeypatch.setattr(controller.publisher, "reconcile", lambda _: None)
    gate.open()
    assert "nothing is written" in controller.wait_for_error(rebuild)
    controller.indexing.cancel(rebuild.job_id)
    controller.close()
    again = _start(tmp_path, request)
    again.publisher.reconcile(again.prefix)
    _require_sound(again)
    assert again.find("blue", 1) == ["1.png"]
    _notify(again, again.paint("1.png", "red"))
    assert sorted(again.find("red", 2)) == ["1.png", "5.png"]
    assert sorted(again.find("any")) == ["0.png", "1.png", "3.png", "4.png", "5.png"]
    _require_sound(again)


def test_much_change_leaves_a_rebuild_to_a_job_of_its_own(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    policy = MergePolicy(max_deltas=8, rebuild_share=0.1, rebuild_rows=2)
    controller = _start(tmp_path, request, merge_policy=policy)
    for number in range(4):
        controller.paint(f"{number}.png", "green")
    controller.index()
    _notify(controller, controller.paint("4.png", "red"))
    jobs = controller.indexing.list_jobs(status=None, limit=9, cursor=None).items
    assert JobKind.REBUILD not in {job.kind for job in jobs}
    _notify(controller, controller.paint("5.png", "red"))
    jobs = controller.indexing.list_jobs(status=None, limit=9, cursor=None).items
    rebuild = next(job for job in jobs if job.kind is JobKind.REBUILD)
    _complete(controller, rebuild)
    assert [entry.rows for entry in _manifest(controller).segments] == [6]
    assert sorted(controller.find("red", 2)) == ["4.png", "5.png"]
    _require_sound(controller)


def _no_space(*_: object) -> None:
    raise StorageError("There is no room.")


@pytest.mark.parametrize("has_room", [True, False])
def test_small_segments_are_not_merged_under_a_rebuild_but_at_its_end(
    tmp_path: Path,
    gate: Gate,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    has_room: bool,
) -> None:
    def files_of(index_prefix: Path) -> DirectoryIndexFiles:
        files = _GatedFiles(index_prefix)
        files.gate = gate
        return files

    policy = MergePolicy(max_deltas=1, rebuild_rows=10**6)
    controller = _start(tmp_path, request, merge_policy=policy, files_of=files_of)
    for number in range(4):
        controller.paint(f"{number}.png", "green")
    controller.index()
    _notify(controller, controller.paint("4.png", "green"))
    rebuild = controller.indexing.rebuild()
    gate.wait_until_reached()
    for number in range(5, 8):
        _notify(controller, controller.paint(f"{number}.png", "green"))
    assert len(_manifest(controller).segments) == 5
    if not has_room:  # For the second merge: what was rebuilt stands nevertheless.
        monkeypatch.setattr(merging, "_require_space", _no_space)
    gate.open()
    _complete(controller, rebuild)
    rows = sorted(segment.rows for segment in _manifest(controller).segments)
    assert rows == ([3, 5] if has_room else [1, 1, 1, 5])
    monkeypatch.undo()
    _notify(controller, controller.paint("8.png", "green"))
    assert len(_manifest(controller).segments) == 2
    assert len(controller.find("any")) == 9
    _require_sound(controller)


def test_a_rebuild_does_not_begin_anew_for_one_of_higher_priority(
    controller: Controller, gate: Gate
) -> None:
    first = controller.indexing.rebuild()
    gate.wait_until_reached()
    before = _manifest(controller)
    index_id = controller.catalog.ensure_index(controller.prefix).index_id
    urgent = new_rebuild(index_id, controller.prefix, only_if_changed=True, priority=Priority.HIGH)
    second = controller.jobs.submit(urgent)
    gate.open()
    _complete(controller, first)
    _complete(controller, second)
    # The first was published; the second found nothing left to do.
    assert _manifest(controller).generation == before.generation + 1


def test_a_scheduled_rebuild_leaves_alone_what_has_not_changed(
    controller: Controller, gate: Gate
) -> None:
    gate.open()
    index_id = controller.catalog.ensure_index(controller.prefix).index_id
    scheduled = new_rebuild(index_id, controller.prefix, only_if_changed=True)
    _complete(controller, controller.jobs.submit(scheduled))
    assert len(_manifest(controller).segments) == 1
    before = _manifest(controller)
    _complete(controller, controller.jobs.submit(scheduled))
    assert _manifest(controller) == before
    _remove(controller, "0.png")
    _complete(controller, controller.jobs.submit(scheduled))
    assert _manifest(controller).tombstones == ()
    # Who asks for one gets it, also when only the settings of search have changed.
    before = _manifest(controller)
    _complete(controller, controller.indexing.rebuild())
    assert _manifest(controller).generation > before.generation
