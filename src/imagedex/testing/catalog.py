"""What every catalog must do."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from imagedex.catalog import Catalog, CatalogCounts, ImageState
from imagedex.core.errors import NotFound
from imagedex.core.images import FailureReason, FileStamp, ImageFacts, ImageFailure, RowLocation
from imagedex.database import Database


def make_facts(image_path: str, *, content_hash: str = "a" * 64) -> ImageFacts:
    """Return facts of an image that nobody looks at closely."""
    return ImageFacts(image_path, content_hash, FileStamp(1234, 10**18 + 1), 640, 480, "JPEG")


def make_failure(
    image_path: str,
    *,
    reason: FailureReason = FailureReason.TRUNCATED,
    stamp: FileStamp | None = None,
) -> ImageFailure:
    """Return a failure of an image."""
    return ImageFailure(image_path, reason, f"{reason}: {image_path}", stamp)


class CatalogContract:
    """Subclass it and give the fixtures ``catalog`` and ``database`` (whose transactions count).

    ``other_catalog`` is what another process on that database would have.
    """

    @pytest.fixture
    def index_id(self, catalog: Catalog) -> int:
        return catalog.ensure_index(Path("/indexes/photos")).index_id

    @pytest.fixture(autouse=True)
    def _keep(self, catalog: Catalog, database: Database) -> None:
        self._kept_catalog = catalog
        self._kept_database = database

    def publish(
        self, index_id: int, generation: int, paths: str = "", *, removed: str = ""
    ) -> None:
        """Record a generation whose one new segment, of the same number, holds these images."""
        with self._kept_database.transaction() as transaction:
            self._kept_catalog.forget_images(transaction, index_id, removed.split())
            self._kept_catalog.record_generation(
                transaction,
                index_id,
                generation=generation,
                indexed=[
                    (RowLocation(generation, row), make_facts(path))
                    for row, path in enumerate(paths.split())
                ],
            )

    def fail(self, index_id: int, *failures: ImageFailure) -> None:
        """Record failures."""
        with self._kept_database.transaction() as transaction:
            self._kept_catalog.record_failures(transaction, index_id, failures)

    def bury(self, index_id: int, *locations: RowLocation) -> None:
        """Record tombstones."""
        with self._kept_database.transaction() as transaction:
            self._kept_catalog.record_tombstones(transaction, index_id, locations)

    def test_a_prefix_keeps_its_index(self, catalog: Catalog) -> None:
        first = catalog.ensure_index(Path("/indexes/one"))
        second = catalog.ensure_index(Path("/indexes/two"))
        assert first.index_id != second.index_id
        assert (first.generation, first.updated_at) == (0, None)
        assert catalog.ensure_index(Path("/indexes/one")) == first
        assert catalog.get_index(Path("/indexes/two")) == second
        assert catalog.list_indexes() == [first, second]

    def test_an_index_that_nobody_made_is_not_known(self, catalog: Catalog) -> None:
        assert catalog.get_index(Path("/indexes/none")) is None
        assert catalog.list_indexes() == []
        with pytest.raises(NotFound, match="7"):
            catalog.counts(7)

    def test_a_generation_makes_its_images_known(self, catalog: Catalog, index_id: int) -> None:
        self.publish(index_id, 1, "/a /b")
        entry = catalog.lookup(index_id, ["/b", "/c"])["/b"]
        assert entry.state is ImageState.INDEXED
        assert entry.stamp == FileStamp(1234, 10**18 + 1)
        assert entry.content_hash == "a" * 64
        assert entry.location == RowLocation(1, 1)
        assert (entry.width, entry.height) == (640, 480)
        assert (entry.reason, entry.detail) == (None, None)
        assert catalog.counts(index_id) == CatalogCounts(indexed=2, failed=0)
        index = catalog.list_indexes()[0]
        assert index.generation == 1
        assert index.updated_at is not None

    def test_all_locations_and_all_failures_can_be_listed(
        self, catalog: Catalog, index_id: int
    ) -> None:
        self.publish(index_id, 1, "/a /b")
        other = catalog.ensure_index(Path("/indexes/other")).index_id
        failures = [
            make_failure("/b", stamp=FileStamp(7, 8)),
            make_failure("/c", reason=FailureReason.VANISHED),
        ]
        self.fail(index_id, *failures)
        self.fail(other, make_failure("/d"))
        assert dict(catalog.locations(index_id)) == {
            "/a": RowLocation(1, 0),
            "/b": RowLocation(1, 1),
        }
        assert sorted(catalog.failures(index_id), key=lambda f: f.image_path) == failures
        assert list(catalog.locations(other)) == []

    def test_unknown_images_are_not_found(self, catalog: Catalog, index_id: int) -> None:
        assert catalog.lookup(index_id, []) == {}
        assert catalog.lookup(index_id, ["/a"]) == {}

    def test_indexes_do_not_see_each_other(self, catalog: Catalog, index_id: int) -> None:
        other = catalog.ensure_index(Path("/indexes/other")).index_id
        self.publish(index_id, 1, "/a")
        self.fail(other, make_failure("/a"))
        assert catalog.lookup(index_id, ["/a"])["/a"].state is ImageState.INDEXED
        assert catalog.lookup(other, ["/a"])["/a"].state is ImageState.FAILED
        assert catalog.counts(other) == CatalogCounts(indexed=0, failed=1)

    def test_an_image_that_is_indexed_again_moves_and_counts_once(
        self, catalog: Catalog, index_id: int
    ) -> None:
        self.publish(index_id, 1, "/a /b")
        self.publish(index_id, 2, "/b")
        assert catalog.lookup(index_id, ["/b"])["/b"].location == RowLocation(2, 0)
        assert catalog.counts(index_id) == CatalogCounts(indexed=2, failed=0)

    def test_a_removed_image_is_forgotten(self, catalog: Catalog, index_id: int) -> None:
        self.publish(index_id, 1, "/a /b")
        self.publish(index_id, 2, removed="/a /never-known")
        assert set(catalog.lookup(index_id, ["/a", "/b"])) == {"/b"}
        assert catalog.counts(index_id) == CatalogCounts(indexed=1, failed=0)

    def test_a_path_that_is_removed_and_indexed_at_once_is_indexed(
        self, catalog: Catalog, index_id: int
    ) -> None:
        self.publish(index_id, 1, "/a")
        self.publish(index_id, 2, "/a", removed="/a")
        assert catalog.lookup(index_id, ["/a"])["/a"].location == RowLocation(2, 0)
        assert catalog.counts(index_id) == CatalogCounts(indexed=1, failed=0)

    def test_of_a_path_that_comes_twice_the_last_counts(
        self, catalog: Catalog, index_id: int
    ) -> None:
        self.publish(index_id, 1, "/a /b /a")
        assert catalog.lookup(index_id, ["/a"])["/a"].location == RowLocation(1, 2)
        assert catalog.counts(index_id) == CatalogCounts(indexed=2, failed=0)

    def test_replaying_a_generation_changes_nothing(self, catalog: Catalog, index_id: int) -> None:
        self.publish(index_id, 1, "/a")
        self.publish(index_id, 2, "/b", removed="/a")
        index = catalog.list_indexes()
        self.publish(index_id, 2, "/b", removed="/a")
        self.publish(index_id, 1, "/a")
        assert set(catalog.lookup(index_id, ["/a", "/b"])) == {"/b"}
        assert catalog.counts(index_id) == CatalogCounts(indexed=1, failed=0)
        assert catalog.list_indexes() == index

    def test_a_failed_image_is_known_with_its_reason(self, catalog: Catalog, index_id: int) -> None:
        stamp = FileStamp(7, 8)
        self.fail(index_id, make_failure("/a", stamp=stamp), make_failure("/b"))
        found = catalog.lookup(index_id, ["/a", "/b"])
        assert found["/a"].state is ImageState.FAILED
        assert found["/a"].reason == FailureReason.TRUNCATED
        assert found["/a"].detail == "truncated: /a"
        assert found["/a"].location is None
        assert (found["/a"].stamp, found["/b"].stamp) == (stamp, None)
        assert catalog.counts(index_id) == CatalogCounts(indexed=0, failed=2)

    def test_an_image_that_fails_again_counts_once(self, catalog: Catalog, index_id: int) -> None:
        self.fail(index_id, make_failure("/a"))
        self.fail(index_id, make_failure("/a", reason=FailureReason.EMPTY), make_failure("/a"))
        assert catalog.counts(index_id) == CatalogCounts(indexed=0, failed=1)
        assert catalog.lookup(index_id, ["/a"])["/a"].reason == FailureReason.TRUNCATED

    def test_a_failed_image_that_is_indexed_later_is_no_failure_any_more(
        self, catalog: Catalog, index_id: int
    ) -> None:
        self.fail(index_id, make_failure("/a"))
        self.publish(index_id, 1, "/a")
        entry = catalog.lookup(index_id, ["/a"])["/a"]
        assert (entry.state, entry.reason, entry.detail) == (ImageState.INDEXED, None, None)
        assert catalog.counts(index_id) == CatalogCounts(indexed=1, failed=0)

    def test_an_indexed_image_whose_later_version_fails_stays_findable(
        self, catalog: Catalog, index_id: int
    ) -> None:
        self.publish(index_id, 1, "/a")
        self.fail(index_id, make_failure("/a", stamp=FileStamp(9, 9)))
        entry = catalog.lookup(index_id, ["/a"])["/a"]
        assert entry.state is ImageState.FAILED
        assert entry.location == RowLocation(1, 0)
        assert entry.stamp == FileStamp(9, 9)
        assert catalog.counts(index_id) == CatalogCounts(indexed=1, failed=1)
        self.publish(index_id, 2, removed="/a")
        assert catalog.counts(index_id) == CatalogCounts(indexed=0, failed=0)

    def test_tombstones_forget_only_images_that_still_lie_there(
        self, catalog: Catalog, index_id: int
    ) -> None:
        self.publish(index_id, 1, "/a /b /c")
        self.publish(index_id, 2, "/b")
        self.bury(index_id, RowLocation(1, 0), RowLocation(1, 1), RowLocation(9, 9))
        assert set(catalog.lookup(index_id, ["/a", "/b", "/c"])) == {"/b", "/c"}
        assert catalog.counts(index_id) == CatalogCounts(indexed=2, failed=0)
        self.bury(index_id, RowLocation(1, 0))
        assert catalog.counts(index_id) == CatalogCounts(indexed=2, failed=0)

    def move(self, index_id: int, generation: int) -> None:
        """Begin to record a merge."""
        with self._kept_database.transaction() as transaction:
            self._kept_catalog.begin_move(transaction, index_id, generation=generation)

    def is_moving(self) -> bool:
        """Say whether the index is known as moving."""
        index = self._kept_catalog.get_index(Path("/indexes/photos"))
        assert index is not None
        assert index in self._kept_catalog.list_indexes()
        return index.is_moving

    def test_a_merge_moves_images_and_changes_nothing_else_of_them(
        self, catalog: Catalog, database: Database, index_id: int
    ) -> None:
        self.publish(index_id, 1, "/a /b")
        self.fail(index_id, make_failure("/b", stamp=FileStamp(9, 9)))
        before = catalog.lookup(index_id, ["/a", "/b"])
        assert not self.is_moving()
        self.move(index_id, 2)
        assert self.is_moving()
        assert catalog.lookup(index_id, ["/a", "/b"]) == before
        moves = [
            (RowLocation(1, 0), RowLocation(2, 1)),
            (RowLocation(1, 1), RowLocation(2, 0)),
            (RowLocation(1, 9), RowLocation(2, 2)),
        ]
        with database.transaction() as transaction:
            catalog.move(transaction, index_id, moves)
            catalog.end_move(transaction, index_id)
        after = catalog.lookup(index_id, ["/a", "/b"])
        assert after == {
            "/a": replace(before["/a"], location=RowLocation(2, 1)),
            "/b": replace(before["/b"], location=RowLocation(2, 0)),
        }
        assert catalog.counts(index_id) == CatalogCounts(indexed=2, failed=1)
        assert not self.is_moving()
        self.move(index_id, 2)
        assert not self.is_moving()
        index = catalog.get_index(Path("/indexes/photos"))
        assert index is not None
        assert index.generation == 2

    def test_an_image_that_has_moved_on_is_not_moved(
        self, catalog: Catalog, database: Database, index_id: int
    ) -> None:
        self.publish(index_id, 1, "/a /b")
        self.publish(index_id, 2, "/a")
        self.move(index_id, 3)
        with database.transaction() as transaction:
            catalog.move(transaction, index_id, [(RowLocation(1, 0), RowLocation(3, 0))])
        assert catalog.lookup(index_id, ["/a"])["/a"].location == RowLocation(2, 0)

    def test_only_images_of_segments_that_are_gone_are_placed(
        self, catalog: Catalog, database: Database, index_id: int
    ) -> None:
        self.publish(index_id, 1, "/a /b")
        self.publish(index_id, 2, "/a")
        self.fail(index_id, make_failure("/c"))
        self.move(index_id, 3)
        rows = [(RowLocation(3, row), make_facts(f"/{name}")) for row, name in enumerate("abcd")]
        with database.transaction() as transaction:
            catalog.place(transaction, index_id, rows, segments={2, 3})
            catalog.end_move(transaction, index_id)
        found = catalog.lookup(index_id, ["/a", "/b", "/c", "/d"])
        assert {path: entry.location for path, entry in found.items()} == {
            "/a": RowLocation(2, 0),
            "/b": RowLocation(3, 1),
            "/c": None,
        }

    def test_an_index_that_is_forgotten_is_not_moving(
        self, catalog: Catalog, database: Database, index_id: int
    ) -> None:
        self.publish(index_id, 1, "/a")
        self.move(index_id, 2)
        with database.transaction() as transaction:
            catalog.forget_index(transaction, index_id)
        assert not self.is_moving()

    def test_a_replayed_merge_only_moves_what_is_known(
        self, catalog: Catalog, database: Database, index_id: int
    ) -> None:
        self.publish(index_id, 1, "/a /b")
        self.fail(index_id, make_failure("/b", stamp=FileStamp(9, 9)))
        before = catalog.lookup(index_id, ["/a", "/b"])
        rows = [(RowLocation(2, row), make_facts(f"/{name}")) for row, name in enumerate("cba")]
        for some in (rows[:2], rows):  # A crash may come between.
            with database.transaction() as transaction:
                catalog.bring_in_moved(transaction, index_id, some)
        after = catalog.lookup(index_id, ["/a", "/b", "/c"])
        assert after.pop("/c").location == RowLocation(2, 0)
        assert after == {
            "/a": replace(before["/a"], location=RowLocation(2, 2)),
            "/b": replace(before["/b"], location=RowLocation(2, 1)),
        }
        assert catalog.counts(index_id) == CatalogCounts(indexed=3, failed=1)

    def test_rows_are_brought_in_bit_by_bit_before_their_generation_is_recorded(
        self, catalog: Catalog, database: Database, index_id: int
    ) -> None:
        self.publish(index_id, 1, "/a")
        rows = [(RowLocation(2, row), make_facts(f"/{name}")) for row, name in enumerate("abc")]
        for some in (rows[:2], rows[:2], rows[2:]):  # A crash may come between.
            with database.transaction() as transaction:
                catalog.bring_in(transaction, index_id, some)
        with database.transaction() as transaction:
            catalog.record_generation(transaction, index_id, generation=2, indexed=())
        known = catalog.lookup(index_id, ["/a", "/b", "/c"])
        assert {path: entry.location for path, entry in known.items()} == {
            facts.image_path: location for location, facts in rows
        }
        assert catalog.counts(index_id) == CatalogCounts(indexed=3, failed=0)

    def test_a_merge_brings_contents_that_were_not_known(
        self, catalog: Catalog, index_id: int
    ) -> None:
        self.publish(index_id, 1, "/a")
        newer = replace(make_facts("/a"), content_hash="f" * 64)
        with self._kept_database.transaction() as transaction:
            catalog.bring_in_moved(transaction, index_id, [(RowLocation(3, 0), newer)])
        (known,) = catalog.lookup(index_id, ["/a"]).values()
        assert (known.content_hash, known.location) == ("f" * 64, RowLocation(3, 0))

    def test_an_outline_tells_of_each_image_below_a_directory(
        self, catalog: Catalog, index_id: int
    ) -> None:
        odd = '/p/"quoted"\\n/é.jpg'
        self.publish(index_id, 1, f"/p/a /p/b /pa /p/deep/c {odd}")
        self.fail(
            index_id,
            make_failure("/p/b", stamp=FileStamp(9, 2**62)),
            make_failure("/p/never", stamp=None),
        )
        found = {
            path: rest
            for outline in catalog.outline(index_id, "/p")
            for path, *rest in zip(
                outline.image_paths,
                outline.sizes,
                outline.mtimes_ns,
                outline.is_indexed,
                strict=True,
            )
        }
        stamp = make_facts("/p/a").stamp
        assert found == {
            "/p/a": [stamp.size, stamp.mtime_ns, 1],
            "/p/b": [9, 2**62, 0],
            "/p/deep/c": [stamp.size, stamp.mtime_ns, 1],
            "/p/never": [-1, 0, 0],
            odd: [stamp.size, stamp.mtime_ns, 1],
        }
        assert list(catalog.outline(index_id, "/elsewhere")) == []

    def test_images_of_segments_that_are_lost_are_forgotten(
        self, catalog: Catalog, index_id: int
    ) -> None:
        self.publish(index_id, 1, "/a /b")
        self.publish(index_id, 2, "/b")
        self.fail(index_id, make_failure("/c"))
        with self._kept_database.transaction() as transaction:
            catalog.forget_lost(transaction, index_id, segments={2, 3})
        assert set(catalog.lookup(index_id, ["/a", "/b", "/c"])) == {"/b", "/c"}
        assert catalog.counts(index_id) == CatalogCounts(indexed=1, failed=1)

    def test_a_forgotten_index_is_as_new_and_the_others_stay(
        self, catalog: Catalog, index_id: int
    ) -> None:
        other = catalog.ensure_index(Path("/indexes/other")).index_id
        self.publish(index_id, 5, "/a /b")
        self.publish(other, 5, "/a")
        with self._kept_database.transaction() as transaction:
            catalog.forget_index(transaction, index_id)
        assert catalog.lookup(index_id, ["/a"]) == {}
        assert catalog.counts(index_id) == CatalogCounts(indexed=0, failed=0)
        assert [index.generation for index in catalog.list_indexes()] == [0, 5]
        self.publish(index_id, 1, "/a")
        assert catalog.counts(index_id) == CatalogCounts(indexed=1, failed=0)

    def test_contents_are_found_by_size_and_those_of_the_mtime_in_any_crowd(
        self, catalog: Catalog, index_id: int
    ) -> None:
        def store(generation: int, facts: list[ImageFacts]) -> None:
            rows = [(RowLocation(generation, row), fact) for row, fact in enumerate(facts)]
            with self._kept_database.transaction() as transaction:
                catalog.record_generation(
                    transaction, index_id, generation=generation, indexed=rows
                )

        def named(number: int, stamp: FileStamp) -> ImageFacts:
            return ImageFacts(f"/{stamp.size}/{number}", f"{number:064x}", stamp, 8, 8, "PNG")

        store(1, [named(1, FileStamp(10, 1)), named(2, FileStamp(10, 2))])
        assert {
            c.content_hash: c.location for c in catalog.contents_like(index_id, FileStamp(10, 9))
        } == {
            f"{1:064x}": RowLocation(1, 0),
            f"{2:064x}": RowLocation(1, 1),
        }
        assert catalog.contents_like(index_id, FileStamp(11, 1)) == []
        assert catalog.contents_like(index_id + 1, FileStamp(10, 1)) == []
        store(2, [named(number, FileStamp(20, number)) for number in range(500)])
        like = catalog.contents_like(index_id, FileStamp(20, 499))
        assert RowLocation(2, 499) in [content.location for content in like]
        assert len(like) < 200
        # A failed one's size is not that of the content which is indexed.
        self.fail(index_id, make_failure("/10/1", stamp=FileStamp(30, 3)))
        assert catalog.contents_like(index_id, FileStamp(30, 3)) == []

    def test_contents_are_found_by_the_size_that_their_file_has_now(
        self, catalog: Catalog, index_id: int
    ) -> None:
        def store(generation: int, path: str, size: int) -> None:
            facts = replace(make_facts(path), stamp=FileStamp(size, 1))
            with self._kept_database.transaction() as transaction:
                catalog.record_generation(
                    transaction,
                    index_id,
                    generation=generation,
                    indexed=[(RowLocation(generation, 0), facts)],
                )

        def like(size: int) -> list[str]:
            found = catalog.contents_like(index_id, FileStamp(size, 1))
            return [content.image_path for content in found]

        store(1, "/a", 10)
        store(2, "/b", 20)
        assert (like(10), like(20)) == (["/a"], ["/b"])
        store(3, "/b", 30)  # It has changed.
        assert (like(20), like(30)) == ([], ["/b"])
        with self._kept_database.transaction() as transaction:
            catalog.forget_images(transaction, index_id, ["/b"])
        store(4, "/c", 40)  # It may get the number that the one before had.
        assert (like(30), like(40)) == ([], ["/c"])
        with self._kept_database.transaction() as transaction:
            catalog.forget_images(transaction, index_id, ["/c"])
        assert like(40) == []
        store(5, "/d", 50)
        assert like(50) == ["/d"]
        with pytest.raises(ZeroDivisionError):
            self._break_off(catalog, index_id, gone="/d")
        assert like(50) == ["/d"]
        with self._kept_database.transaction() as transaction:
            catalog.forget_index(transaction, index_id)
        assert (like(10), like(50)) == ([], [])
        store(1, "/e", 10)
        assert like(10) == ["/e"]

    def test_contents_are_found_by_the_size_that_another_process_gave_their_file(
        self, catalog: Catalog, other_catalog: Catalog, index_id: int
    ) -> None:
        generations = count(1)

        def store(by: Catalog, path: str, size: int) -> None:
            facts = replace(make_facts(path), stamp=FileStamp(size, 1))
            generation = next(generations)
            with self._kept_database.transaction() as transaction:
                by.record_generation(
                    transaction,
                    index_id,
                    generation=generation,
                    indexed=[(RowLocation(generation, 0), facts)],
                )

        def like(size: int) -> list[list[str]]:
            found = [one.contents_like(index_id, FileStamp(size, 1)) for one in both]
            return [[content.image_path for content in contents] for contents in found]

        both = (catalog, other_catalog)
        store(catalog, "/a", 10)
        assert like(10) == [["/a"], ["/a"]]
        store(other_catalog, "/a", 20)
        assert (like(10), like(20)) == ([[], []], [["/a"], ["/a"]])
        store(other_catalog, "/a", 30)
        store(catalog, "/b", 40)
        assert (like(30), like(40)) == ([["/a"], ["/a"]], [["/b"], ["/b"]])
        for by, size in zip(
            (catalog, other_catalog, catalog, other_catalog), range(50, 54), strict=True
        ):
            store(by, "/a", size)
        assert (like(50), like(53)) == ([[], []], [["/a"], ["/a"]])
        with self._kept_database.transaction() as transaction:
            other_catalog.forget_index(transaction, index_id)
        assert (like(40), like(53)) == ([[], []], [[], []])

    def test_contents_are_found_though_those_of_another_index_went_away(
        self, catalog: Catalog, index_id: int
    ) -> None:
        other = catalog.ensure_index(Path("/indexes/other")).index_id
        stamp = make_facts("/a").stamp
        self.publish(index_id, 1, "/a")
        self.publish(other, 1, "/b /c")
        assert len(catalog.contents_like(index_id, stamp)) == 1
        with self._kept_database.transaction() as transaction:
            catalog.forget_images(transaction, other, ["/c"])
        self.publish(index_id, 2, "/d")
        assert len(catalog.contents_like(index_id, stamp)) == 2
        with self._kept_database.transaction() as transaction:
            catalog.forget_index(transaction, other)
        self.publish(index_id, 3, "/e /f")
        assert len(catalog.contents_like(index_id, stamp)) == 4

    def test_contents_that_are_left_are_found_among_many_that_went_away(
        self, catalog: Catalog, index_id: int
    ) -> None:
        paths = [f"/{number}" for number in range(300)]
        self.publish(index_id, 1, " ".join(paths))
        stamp = replace(make_facts("/a").stamp, mtime_ns=7)
        assert len(catalog.contents_like(index_id, stamp)) > 50
        self.publish(index_id, 2, removed=" ".join(paths[:299]))
        assert [c.image_path for c in catalog.contents_like(index_id, stamp)] == paths[299:]

    def test_what_is_rolled_back_was_never_there(self, catalog: Catalog, index_id: int) -> None:
        self.publish(index_id, 1, "/a")
        with pytest.raises(ZeroDivisionError):
            self._break_off(catalog, index_id)
        assert set(catalog.lookup(index_id, ["/a", "/b"])) == {"/a"}
        assert catalog.counts(index_id) == CatalogCounts(indexed=1, failed=0)
        assert catalog.list_indexes()[0].generation == 1

    def _break_off(self, catalog: Catalog, index_id: int, *, gone: str = "/a") -> None:
        with self._kept_database.transaction() as transaction:
            catalog.record_failures(transaction, index_id, [make_failure("/b")])
            catalog.record_generation(transaction, index_id, generation=2, indexed=())
            catalog.forget_images(transaction, index_id, [gone])
            raise ZeroDivisionError

    def test_changes_to_an_index_that_is_not_known_are_refused(self, catalog: Catalog) -> None:
        with pytest.raises(NotFound):
            self.publish(99, 1, "/a")
        with pytest.raises(NotFound):
            self.fail(99, make_failure("/a"))
        with pytest.raises(NotFound):
            self.bury(99, RowLocation(1, 1))
        with pytest.raises(NotFound):
            self.move(99, 1)

    def test_any_number_of_paths_can_be_looked_up_and_stored(
        self, catalog: Catalog, index_id: int
    ) -> None:
        paths = [f"/photos/{number}" for number in range(12_000)]
        self.publish(index_id, 1, " ".join(paths))
        assert len(catalog.lookup(index_id, [*paths, "/unknown"])) == len(paths)
        self.bury(index_id, *(RowLocation(1, row) for row in range(5_000)))
        assert catalog.counts(index_id) == CatalogCounts(indexed=7_000, failed=0)
        self.publish(index_id, 2, removed=" ".join(paths))
        assert catalog.counts(index_id) == CatalogCounts(indexed=0, failed=0)
