"""What a job has to do, given what the catalog knows."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from imagedex.catalog import SqlCatalog
from imagedex.core.images import FailureReason, FileStamp, ImageFacts, ImageFailure, RowLocation
from imagedex.database import Database
from imagedex.indexing.planning import Plan, plan_notified, plan_scan, settle_down
from imagedex.ingest import ImageRoots, ScannedFile, stamp_of
from imagedex.jobs import ChunkAction
from support.empty_database import database_in

STAMP = FileStamp(size=100, mtime_ns=1)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = database_in(tmp_path / "imagedex.db")
    yield database
    database.close()


class KnownImages:
    """A catalog of one index, and short ways to fill it."""

    def __init__(self, database: Database, tmp_path: Path) -> None:
        self._database = database
        self.catalog = SqlCatalog(database)
        self.index_id = self.catalog.ensure_index(tmp_path / "index").index_id

    def indexed(self, *image_paths: str, stamp: FileStamp = STAMP) -> None:
        rows = [
            (RowLocation(1, row), ImageFacts(path, "0" * 64, stamp, 8, 8, "PNG"))
            for row, path in enumerate(image_paths)
        ]
        with self._database.transaction() as transaction:
            self.catalog.record_generation(transaction, self.index_id, generation=1, indexed=rows)

    def failed(self, image_path: str, reason: FailureReason) -> None:
        failure = ImageFailure(image_path, reason, "why", STAMP)
        with self._database.transaction() as transaction:
            self.catalog.record_failures(transaction, self.index_id, [failure])

    def plan(self, scanned: Sequence[ScannedFile | ImageFailure], *, force: bool = False) -> Plan:
        return plan_scan(scanned, self.catalog, self.index_id, "/p", force=force)


@pytest.fixture
def known(database: Database, tmp_path: Path) -> KnownImages:
    return KnownImages(database, tmp_path)


def test_a_new_file_is_embedded(known: KnownImages) -> None:
    plan = known.plan([ScannedFile.of("/p/new.png", STAMP)])
    assert (plan.embed, plan.total_images, plan.settled_images) == (["/p/new.png"], 1, 0)


def test_an_unchanged_file_is_settled(known: KnownImages) -> None:
    known.indexed("/p/same.png")
    plan = known.plan([ScannedFile.of("/p/same.png", STAMP)])
    assert (plan.embed, plan.total_images, plan.settled_images) == ([], 1, 1)


@pytest.mark.parametrize("stamp", [FileStamp(101, 1), FileStamp(100, 2)])
def test_a_changed_file_is_embedded_again(known: KnownImages, stamp: FileStamp) -> None:
    known.indexed("/p/changed.png")
    assert known.plan([ScannedFile.of("/p/changed.png", stamp)]).embed == ["/p/changed.png"]


def test_force_embeds_unchanged_and_failed_files(known: KnownImages) -> None:
    known.indexed("/p/same.png")
    known.failed("/p/empty.png", FailureReason.EMPTY)
    scanned = [ScannedFile.of("/p/same.png", STAMP), ScannedFile.of("/p/empty.png", STAMP)]
    assert known.plan(scanned, force=True).embed == ["/p/same.png", "/p/empty.png"]


def test_a_failure_that_lies_in_the_bytes_is_reported_but_not_tried_again(
    known: KnownImages,
) -> None:
    known.failed("/p/empty.png", FailureReason.EMPTY)
    plan = known.plan([ScannedFile.of("/p/empty.png", STAMP)])
    assert plan.embed == []
    assert plan.settled_images == 1
    assert [(f.image_path, f.reason, f.detail) for f in plan.failures] == [
        ("/p/empty.png", FailureReason.EMPTY, "why")
    ]


def test_a_failure_that_may_pass_is_tried_again(known: KnownImages) -> None:
    known.failed("/p/slow.png", FailureReason.DECODER_TIMEOUT)
    assert known.plan([ScannedFile.of("/p/slow.png", STAMP)]).embed == ["/p/slow.png"]


def test_a_failure_of_the_scan_is_settled_and_reported(known: KnownImages) -> None:
    failure = ImageFailure("/p/pipe.png", FailureReason.NOT_A_FILE, "A FIFO.")
    plan = known.plan([failure])
    assert (plan.failures, plan.settled_images, plan.embed) == ([failure], 1, [])


def test_a_known_file_that_is_not_there_is_missing_and_not_removed_yet(
    known: KnownImages, tmp_path: Path
) -> None:
    known.indexed("/p/gone.png", "/p/here.png", "/pother/gone.png")
    plan = known.plan([ScannedFile.of("/p/here.png", STAMP)])
    assert (plan.missing, plan.remove, plan.total_images) == (["/p/gone.png"], [], 1)


def test_a_file_that_is_there_is_not_missing_whatever_the_scan_says(
    known: KnownImages, tmp_path: Path
) -> None:
    hidden = tmp_path / ".hidden.png"
    hidden.touch()
    known.indexed(str(hidden), str(tmp_path / "gone.png"))
    plan = plan_scan([], known.catalog, known.index_id, str(tmp_path), force=False)
    assert plan.missing == [str(tmp_path / "gone.png")]


def test_nothing_below_a_directory_that_could_not_be_read_is_missing(known: KnownImages) -> None:
    known.indexed("/p/dark/a.png", "/p/dark/deep/b.png", "/p/darker/c.png", "/p/dark.png")
    failure = ImageFailure("/p/dark", FailureReason.UNREADABLE, "Refused.")
    assert known.plan([failure]).missing == ["/p/dark.png", "/p/darker/c.png"]


def test_a_fresh_file_is_unsettled_and_taken_when_it_stayed_the_same(
    known: KnownImages, tmp_path: Path
) -> None:
    for name in ("same.png", "grows.png", "vanishes.png", "old.png"):
        (tmp_path / name).write_bytes(b"x")
    os.utime(tmp_path / "old.png", ns=(5, 5))
    files = [
        ScannedFile.of(str(path), stamp_of(path.stat())) for path in sorted(tmp_path.glob("*.png"))
    ]
    directory = str(tmp_path)
    plan = plan_scan(
        files, known.catalog, known.index_id, directory, force=False, settled_before_ns=6
    )
    assert plan.embed == [str(tmp_path / "old.png")]
    assert len(plan.unsettled) == 3
    (tmp_path / "grows.png").write_bytes(b"xx")
    (tmp_path / "vanishes.png").unlink()
    settle_down(plan)
    assert plan.embed == [str(tmp_path / "old.png"), str(tmp_path / "same.png")]
    assert (plan.total_images, plan.left_unsettled, plan.failures) == (2, 2, [])


def test_new_and_changed_files_are_told_apart(known: KnownImages) -> None:
    known.indexed("/p/changed.png", "/p/same.png")
    files = [ScannedFile.of("/p/changed.png", FileStamp(1, 1)), ScannedFile.of("/p/new.png", STAMP)]
    plan = known.plan([*files, ScannedFile.of("/p/same.png", STAMP)])
    assert (plan.added, len(plan.embed), plan.unchanged) == (1, 2, 1)


def test_chunks_hold_all_work_and_no_more_than_their_size() -> None:
    plan = Plan(embed=[f"/p/{n}.png" for n in range(5)], remove=["/p/gone.png"])
    chunks = list(plan.chunks(2))
    assert [(c.action, len(c.image_paths)) for c in chunks] == [
        (ChunkAction.REMOVE, 1),
        (ChunkAction.EMBED, 2),
        (ChunkAction.EMBED, 2),
        (ChunkAction.EMBED, 1),
    ]


class TestNotified:
    """A notifier's word counts, except against a share that is not there."""

    def _plan(self, known: KnownImages, root: Path, *names: str) -> Plan:
        paths = [str(root / name) for name in names]
        return plan_notified(paths, known.catalog, known.index_id, ImageRoots([root]))

    def test_a_file_that_is_there_is_embedded_even_when_it_seems_unchanged(
        self, known: KnownImages, tmp_path: Path
    ) -> None:
        photo = tmp_path / "photo.png"
        photo.write_bytes(b"x")
        stat = photo.stat()
        known.indexed(str(photo), stamp=FileStamp(stat.st_size, stat.st_mtime_ns))
        assert self._plan(known, tmp_path, "photo.png").embed == [str(photo)]

    def test_an_indexed_file_that_is_gone_is_removed(
        self, known: KnownImages, tmp_path: Path
    ) -> None:
        (tmp_path / "other.png").touch()
        known.indexed(str(tmp_path / "gone.png"))
        plan = self._plan(known, tmp_path, "gone.png")
        assert (plan.remove, plan.settled_images) == ([str(tmp_path / "gone.png")], 1)

    def test_an_unknown_file_that_is_not_there_has_vanished(
        self, known: KnownImages, tmp_path: Path
    ) -> None:
        (tmp_path / "other.png").touch()
        plan = self._plan(known, tmp_path, "never.png")
        assert plan.remove == []
        assert [failure.reason for failure in plan.failures] == [FailureReason.VANISHED]

    def test_an_empty_image_root_is_no_reason_to_remove(
        self, known: KnownImages, tmp_path: Path
    ) -> None:
        root = tmp_path / "unmounted"
        root.mkdir()
        known.indexed(str(root / "photo.png"))
        plan = self._plan(known, root, "photo.png")
        assert plan.remove == []
        assert "mounted" in plan.failures[0].detail

    def test_a_path_that_is_named_twice_counts_once(
        self, known: KnownImages, tmp_path: Path
    ) -> None:
        (tmp_path / "photo.png").touch()
        plan = self._plan(known, tmp_path, "photo.png", "photo.png")
        assert (plan.total_images, len(plan.embed)) == (1, 1)
