"""Scanning real directories."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from imagedex.core.errors import InvalidRequest, SettingsError
from imagedex.core.images import FailureReason, FileStamp, ImageFailure
from imagedex.ingest import (
    IgnoreRules,
    ImageRoots,
    ScannedFile,
    has_image_name,
    require_directory,
    scan,
)
from imagedex.ingest.scan import IMAGE_EXTENSIONS, SYSTEM_DIRECTORIES
from imagedex.testing.hostile_images import write_hostile_files


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def write(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def scan_all(directory: Path) -> list[ScannedFile | ImageFailure]:
    return list(scan(ImageRoots([directory]), str(directory)))


def names(directory: Path) -> list[str]:
    return [os.path.relpath(item.image_path, directory) for item in scan_all(directory)]


def test_images_are_found_with_their_stamps(tmp_path: Path) -> None:
    path = write(tmp_path / "a" / "picture.jpg", b"12345")
    assert scan_all(tmp_path) == [
        ScannedFile.of(str(path), FileStamp(5, path.stat().st_mtime_ns)),
    ]


def test_the_order_depends_on_the_names_alone(tmp_path: Path) -> None:
    for name in ("b/2.jpg", "z.jpg", "b/1.jpg", "a/c/1.jpg", "a/1.jpg", "B.jpg", "é.jpg", "a.jpg"):
        write(tmp_path / name)
    expected = ["B.jpg", "a.jpg", "z.jpg", "é.jpg", "a/1.jpg", "a/c/1.jpg", "b/1.jpg", "b/2.jpg"]
    assert names(tmp_path) == expected


def test_files_are_taken_by_their_extension_in_any_case(tmp_path: Path) -> None:
    for extension in IMAGE_EXTENSIONS:
        assert has_image_name(f"/x/a.b.{extension.upper()}")
        write(tmp_path / f"a.{extension}")
    for name in ("a.txt", "jpg", "a.jpg.part", "a.jpg~", ".jpg", "._a.jpg", "Thumbs.db", "a."):
        assert not has_image_name(f"/x/{name}")
        write(tmp_path / name)
    assert len(scan_all(tmp_path)) == len(IMAGE_EXTENSIONS)


def test_a_directory_named_like_an_image_is_entered(tmp_path: Path) -> None:
    write(tmp_path / "holiday.jpg" / "1.jpg")
    assert names(tmp_path) == ["holiday.jpg/1.jpg"]


def test_hidden_and_system_directories_are_passed_over(tmp_path: Path) -> None:
    for name in (*SYSTEM_DIRECTORIES, ".Trash-1000", ".snapshot", ".git"):
        write(tmp_path / name / "1.jpg")
    write(tmp_path / "@eaDirectory" / "1.jpg")
    assert names(tmp_path) == ["@eaDirectory/1.jpg"]
    # Asked for by name, it is scanned all the same.
    assert names(tmp_path / ".git") == ["1.jpg"]


def test_links_to_files_count_within_the_roots_only(tmp_path: Path) -> None:
    root, other = tmp_path / "root", tmp_path / "other"
    target, foreign = write(root / "real.dat", b"123"), write(other / "a.jpg")
    (root / "inside.jpg").symlink_to(target)
    (root / "outside.jpg").symlink_to(foreign)
    found = {Path(item.image_path).name: item for item in scan_all(root)}
    inside, outside = found["inside.jpg"], found["outside.jpg"]
    assert inside == ScannedFile.of(
        str(root / "inside.jpg"), FileStamp(3, target.stat().st_mtime_ns)
    )
    assert isinstance(outside, ImageFailure)
    assert outside.reason is FailureReason.OUTSIDE_ROOTS
    both = list(scan(ImageRoots([root, other]), str(root)))
    assert all(isinstance(item, ScannedFile) for item in both)


def test_linked_directories_are_not_entered(tmp_path: Path) -> None:
    write(tmp_path / "real" / "1.jpg")
    (tmp_path / "real" / "up").symlink_to("..")
    (tmp_path / "alias").symlink_to("real")
    (tmp_path / "alias.jpg").symlink_to("real")
    assert names(tmp_path) == ["real/1.jpg"]


def test_the_scanned_directory_itself_may_be_a_link(tmp_path: Path) -> None:
    write(tmp_path / "real" / "1.jpg")
    (tmp_path / "alias").symlink_to("real")
    found = list(scan(ImageRoots([tmp_path]), str(tmp_path / "alias")))
    assert [item.image_path for item in found] == [str(tmp_path / "alias" / "1.jpg")]


def test_hostile_files_are_found_or_fail_for_their_reason(tmp_path: Path) -> None:
    written = write_hostile_files(tmp_path)
    found = {item.image_path: item for item in scan_all(tmp_path)}
    (folder,) = set(written) - set(found)
    assert folder.endswith("folder.jpg")
    for path, item in found.items():
        if written[path].is_found_by_scan:
            assert isinstance(item, ScannedFile)
        elif path.endswith("device.jpg"):  # By where the link leads, before what it leads to.
            assert isinstance(item, ImageFailure)
            assert item.reason is FailureReason.OUTSIDE_ROOTS
        else:
            assert isinstance(item, ImageFailure)
            assert item.reason is written[path].reason


def test_names_that_are_not_utf8_fail_with_their_bytes_written_out(tmp_path: Path) -> None:
    write(tmp_path / "good.jpg")
    for name in (b"caf\xe9.jpg", b"caf\xe9.txt", b"dossier\xe9/1.jpg"):
        write(tmp_path / os.fsdecode(name))
    found = scan_all(tmp_path)
    assert [item.image_path for item in found if isinstance(item, ScannedFile)] == [
        str(tmp_path / "good.jpg")
    ]
    assert {item.image_path: item.reason for item in found if isinstance(item, ImageFailure)} == {
        f"{tmp_path}/caf\\xe9.jpg": FailureReason.NAME_NOT_UTF8,
        f"{tmp_path}/dossier\\xe9": FailureReason.NAME_NOT_UTF8,
    }


def test_an_unreadable_directory_fails_and_the_rest_goes_on(
    open_directory: Path, unprivileged: Callable[[], AbstractContextManager[None]]
) -> None:
    for name in ("a/1.jpg", "locked/1.jpg", "z/1.jpg"):
        write(open_directory / name)
    (open_directory / "locked").chmod(0)
    with unprivileged():
        before, locked, after = scan_all(open_directory)
    (open_directory / "locked").chmod(0o700)
    assert isinstance(before, ScannedFile)
    assert isinstance(after, ScannedFile)
    assert isinstance(locked, ImageFailure)
    assert locked.image_path == str(open_directory / "locked")
    assert locked.reason is FailureReason.UNREADABLE


def test_a_directory_that_goes_away_during_the_scan_is_reported(tmp_path: Path) -> None:
    write(tmp_path / "a.jpg")
    write(tmp_path / "later" / "1.jpg")
    found = scan(ImageRoots([tmp_path]), str(tmp_path))
    assert isinstance(next(found), ScannedFile)
    (tmp_path / "later" / "1.jpg").unlink()
    (tmp_path / "later").rmdir()
    (gone,) = found
    assert isinstance(gone, ImageFailure)
    assert gone.reason is FailureReason.VANISHED


def test_a_deep_tree_needs_no_deep_stack(tmp_path: Path) -> None:
    # Deeper than Python's calls; made and removed step by step for the same reason.
    levels = [f"{tmp_path}{'/d' * depth}" for depth in range(1, 1200)]
    for level in levels:
        Path(level).mkdir()
    image_path = f"{levels[-1]}/1.jpg"
    Path(image_path).touch()
    try:
        assert [item.image_path for item in scan_all(tmp_path)] == [image_path]
    finally:
        Path(image_path).unlink()
        for level in reversed(levels):
            Path(level).rmdir()


def test_a_directory_that_is_none_is_an_invalid_request(tmp_path: Path) -> None:
    write(tmp_path / "a.jpg")
    for name, text in (("missing", "no directory"), ("a.jpg", "not a directory")):
        with pytest.raises(InvalidRequest, match=text):
            scan(ImageRoots([tmp_path]), str(tmp_path / name))
        with pytest.raises(InvalidRequest, match=text):
            require_directory(str(tmp_path / name))


def test_scanning_keeps_one_directory_open_at_most_and_none_afterwards(tmp_path: Path) -> None:
    for name in ("a.jpg", "b/1.jpg", "b/c/1.jpg"):
        write(tmp_path / name)
    before = open_descriptors()
    for _ in scan(ImageRoots([tmp_path]), str(tmp_path)):
        assert open_descriptors() <= before + 1
    assert open_descriptors() == before
    given_up = scan(ImageRoots([tmp_path]), str(tmp_path))
    next(given_up)
    del given_up
    assert open_descriptors() == before


@pytest.mark.parametrize("swapped", ["later", "later/deep"])
def test_a_directory_that_becomes_a_link_during_the_scan_does_not_lead_it_out(
    tmp_path: Path, swapped: str
) -> None:
    root, private = tmp_path / "root", tmp_path / "private"
    for name in ("a.jpg", "later/1.jpg", "later/deep/1.jpg"):
        write(root / name)
    write(private / "secret.jpg")
    write(private / "deep" / "secret.jpg")
    found = scan(ImageRoots([root]), str(root))
    # Paused in the directory above, which is listed by then.
    while Path(next(found).image_path).parent != (root / swapped).parent:
        pass
    (root / swapped).rename(root / ".away")
    (root / swapped).symlink_to(private)
    (outcome,) = found
    assert isinstance(outcome, ImageFailure)
    assert outcome.image_path == str(root / swapped)
    assert outcome.reason is FailureReason.OUTSIDE_ROOTS


def test_a_link_above_a_directory_that_waits_does_not_lead_the_scan_out(tmp_path: Path) -> None:
    root, private = tmp_path / "root", tmp_path / "private"
    write(root / "a" / "b" / "1.jpg")
    write(root / "a" / "1.jpg")
    write(private / "b" / "secret.jpg")
    found = scan(ImageRoots([root]), str(root))
    assert isinstance(next(found), ScannedFile)
    (root / "a").rename(root / ".away")
    (root / "a").symlink_to(private)
    (outcome,) = found
    assert isinstance(outcome, ImageFailure)
    assert outcome.image_path == str(root / "a" / "b")
    assert outcome.reason is FailureReason.OUTSIDE_ROOTS
    assert str(private) in outcome.detail


def test_files_are_looked_at_in_the_directory_that_was_listed(tmp_path: Path) -> None:
    root, private = tmp_path / "root", tmp_path / "private"
    for name in ("a/1.jpg", "a/2.jpg"):
        write(root / name)
    write(private / "2.jpg", b"a secret of some length")
    found = scan(ImageRoots([root]), str(root))
    next(found)
    (root / "a").rename(root / ".away")
    (root / "a").symlink_to(private)
    (second,) = found
    assert isinstance(second, ScannedFile)
    assert second.stamp.size == 1


def test_a_directory_that_becomes_a_link_within_the_roots_is_scanned_where_it_lies(
    tmp_path: Path,
) -> None:
    for name in ("a.jpg", "later/1.jpg"):
        write(tmp_path / name)
    found = scan(ImageRoots([tmp_path]), str(tmp_path))
    next(found)
    (tmp_path / "later").rename(tmp_path / "moved")
    (tmp_path / "later").symlink_to("moved")
    (outcome,) = found
    assert isinstance(outcome, ImageFailure)
    assert outcome.image_path == str(tmp_path / "later")
    assert names(tmp_path) == ["a.jpg", "moved/1.jpg"]


def test_a_start_that_leads_out_of_the_roots_is_not_listed(tmp_path: Path) -> None:
    root, private = tmp_path / "root", tmp_path / "private"
    write(private / "secret.jpg")
    root.mkdir()
    (root / "start").symlink_to(private)
    (outcome,) = scan(ImageRoots([root]), str(root / "start"))
    assert isinstance(outcome, ImageFailure)
    assert outcome.reason is FailureReason.OUTSIDE_ROOTS


def test_a_link_that_keeps_changing_tells_nothing_of_what_lies_outside(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write(root / "inside.dat", b"in")
    write(tmp_path / "outside.dat", b"outside")
    link, spare = root / "link.jpg", root / "spare"
    link.symlink_to("inside.dat")
    is_over = threading.Event()

    def swap() -> None:
        while not is_over.is_set():
            for target in (tmp_path / "outside.dat", root / "inside.dat"):
                spare.symlink_to(target)
                spare.replace(link)

    swapper = threading.Thread(target=swap)
    swapper.start()
    sizes = set()
    try:
        for _ in range(1000):
            sizes |= {item.stamp.size for item in scan_all(root) if isinstance(item, ScannedFile)}
    finally:
        is_over.set()
        swapper.join()
    assert sizes <= {2}


def test_a_file_from_a_far_future_gets_a_stamp_that_databases_can_hold(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jpg")
    os.utime(path, (16_000_000_000, 16_000_000_000))  # In the year 2477.
    (item,) = scan_all(tmp_path)
    assert isinstance(item, ScannedFile)
    assert item.stamp.mtime_ns < 2**63
    with ImageRoots([tmp_path]).open_image(str(path)) as opened:
        assert opened.stamp() == item.stamp


def test_own_globs_are_passed_over_by_name_or_by_path_below_the_root(tmp_path: Path) -> None:
    for name in (
        "a_thumb.jpg", "a.jpg", "private/1.jpg", "private/deep/2.jpg", "x/private/3.jpg",
        "x/cache/4.jpg", "y/cache.jpg", "cache/5.jpg", "top.jpg", "x/top.jpg", "A_THUMB.jpg",
    ):  # fmt: skip
        write(tmp_path / name)
    rules = IgnoreRules(("*_thumb.jpg", "private/*", "cache/", "/top.jpg"))
    # Whichever directory of the root is scanned, a path means the same.
    for start in (tmp_path, tmp_path / "x"):
        found = scan(ImageRoots([tmp_path]), str(start), ignore=rules)
        below = [os.path.relpath(item.image_path, tmp_path) for item in found]
        expected = ["A_THUMB.jpg", "a.jpg", "x/top.jpg", "x/private/3.jpg", "y/cache.jpg"]
        assert below == [name for name in expected if start == tmp_path or name.startswith("x/")]


def test_globs_bear_names_that_are_no_text(tmp_path: Path) -> None:
    write(tmp_path / os.fsdecode(b"n\xe9.jpg"))
    found = list(scan(ImageRoots([tmp_path]), str(tmp_path), ignore=IgnoreRules(("n*",))))
    assert found == []


@pytest.mark.parametrize("glob", ["", "/", "../other", "a/../b", "a\0"])
def test_a_glob_that_can_match_nothing_is_refused(glob: str) -> None:
    with pytest.raises(SettingsError, match="glob"):
        IgnoreRules((glob,))
