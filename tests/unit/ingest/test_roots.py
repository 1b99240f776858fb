"""Image roots: which names an outsider may use, and which files are really opened."""

from __future__ import annotations

import errno
import os
import pickle
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Self

import pytest

from imagedex.core.errors import InvalidRequest, OutsideImageRoots
from imagedex.core.images import FailureReason
from imagedex.core.paths import PathMapping
from imagedex.ingest import ImageRoots
from imagedex.ingest.unusable import UnusableImage


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    root.mkdir()
    return root


@pytest.fixture
def roots(root: Path) -> ImageRoots:
    return ImageRoots([root])


def reason_of(roots: ImageRoots, path: Path | str) -> FailureReason:
    with pytest.raises(UnusableImage) as caught:
        roots.open_image(str(path))
    return caught.value.reason


def count_questions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that gets each path which the file system is asked about from now on."""
    asked: list[str] = []
    lstat = os.lstat

    def ask(path: str) -> os.stat_result:
        asked.append(path)
        return lstat(path)

    monkeypatch.setattr(os, "lstat", ask)
    return asked


def test_a_path_below_a_root_passes_normalised(roots: ImageRoots, root: Path) -> None:
    for spelling in ("a/b.jpg", "a//b.jpg", "./a/./b.jpg", "x/../a/b.jpg", "a/b.jpg/"):
        assert roots.check(f"{root}/{spelling}") == f"{root}/a/b.jpg"
    assert roots.check(f"/{root}/a.jpg") == f"{root}/a.jpg"
    assert roots.check(str(root)) == str(root)
    odd = f"{root}/new\nline \u202e and ünïcode.jpg"
    assert roots.check(odd) == odd


@pytest.mark.parametrize(
    "path", ["", "relative.jpg", "./a.jpg", "~/a.jpg", "/a\0b.jpg", "/\udcff.jpg", "/" + "a" * 4095]
)
def test_nonsense_is_an_invalid_request(path: str) -> None:
    with pytest.raises(InvalidRequest):
        ImageRoots(["/"]).check(path)


def test_paths_elsewhere_are_outside(roots: ImageRoots, root: Path) -> None:
    for path in (
        "/etc/passwd",
        f"{root}/../secret.jpg",
        f"{root}-private/a.jpg",
        "/",
        f"{root}/..",
    ):
        with pytest.raises(OutsideImageRoots, match="IMAGEDEX_IMAGE_ROOTS"):
            roots.check(path)


def test_a_link_out_of_the_roots_is_outside(roots: ImageRoots, root: Path, tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir()
    (private / "a.jpg").touch()
    (root / "directory").symlink_to(private)
    (root / "file.jpg").symlink_to(private / "a.jpg")
    for name in ("directory", "directory/a.jpg", "directory/not-there.jpg", "file.jpg"):
        with pytest.raises(OutsideImageRoots, match="link"):
            roots.check(f"{root}/{name}")


def test_a_link_within_the_roots_passes_as_named(roots: ImageRoots, root: Path) -> None:
    (root / "2024").mkdir()
    (root / "2024" / "a.jpg").write_bytes(b"x")
    (root / "latest").symlink_to("2024")
    (root / "loop").symlink_to("loop")
    for name in ("latest/a.jpg", "loop"):
        assert roots.check(f"{root}/{name}") == f"{root}/{name}"
    with roots.open_image(f"{root}/latest/a.jpg") as opened:
        assert opened.real_path == f"{root.resolve()}/2024/a.jpg"


def test_a_root_may_itself_be_a_link(root: Path, tmp_path: Path) -> None:
    alias = tmp_path / "alias"
    alias.symlink_to(root)
    (root / "a.jpg").write_bytes(b"x")
    roots = ImageRoots([alias])
    assert roots.check(f"{alias}/a.jpg") == f"{alias}/a.jpg"
    roots.open_image(f"{alias}/a.jpg").close()
    with pytest.raises(OutsideImageRoots):
        roots.check(f"{root}/a.jpg")  # Named otherwise than the operator allowed.


def test_many_paths_are_checked_like_one(roots: ImageRoots, root: Path) -> None:
    paths = [f"{root}/{name}.jpg" for name in "cab"]
    assert roots.check_all(paths) == paths
    with pytest.raises(OutsideImageRoots):
        roots.check_all([*paths, "/etc/passwd"])


def test_a_path_of_too_many_components_is_refused_unasked(
    roots: ImageRoots, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = len(root.parts) - 1
    longest = f"{root}{'/d' * (255 - count)}"
    assert roots.check(longest) == longest
    assert roots.check(f"{longest}/.//./") == longest
    asked = count_questions(monkeypatch)
    with pytest.raises(InvalidRequest, match="256 components; at most 255"):
        roots.check(f"{longest}/d")
    assert asked == []


def test_checking_many_paths_asks_once_for_each_directory_on_them(
    roots: ImageRoots, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a/b/c", "a/b/d"):
        (root / name).mkdir(parents=True)
    paths = [f"{root}/a/b/{name}/{number}.jpg" for name in "cd" for number in range(20)]
    asked = count_questions(monkeypatch)
    assert roots.check_all(paths) == paths
    assert len(set(asked)) == len(asked)
    together = len(asked)
    asked.clear()
    for path in paths:
        roots.check(path)
    assert len(asked) > 4 * together


def test_links_on_the_way_are_followed_for_each_of_many_paths(
    roots: ImageRoots, root: Path, tmp_path: Path
) -> None:
    (tmp_path / "private" / "deep").mkdir(parents=True)
    (root / "real" / "deep").mkdir(parents=True)
    (root / "real" / "up").symlink_to("../real/deep")
    (root / "alias").symlink_to("real")
    (root / "real" / "deep" / "out").symlink_to(tmp_path / "private")
    paths = [f"{root}/alias/{name}/1.jpg" for name in ("deep", "up", "new/deeper")]
    assert roots.check_all(paths) == paths
    for name in ("alias/up/out", "alias/up/out/deep/1.jpg", "alias/deep/out/1.jpg"):
        with pytest.raises(OutsideImageRoots, match="link"):
            roots.check_all([*paths, f"{root}/{name}"])


def test_without_roots_nothing_is_allowed() -> None:
    with pytest.raises(OutsideImageRoots, match="Set IMAGEDEX_IMAGE_ROOTS"):
        ImageRoots().check("/photos/a.jpg")


def test_the_innermost_root_is_the_one_of_a_path() -> None:
    roots = ImageRoots(["/photos", Path("/photos/nas/"), "/"])
    assert roots.root_of("/photos/nas/a.jpg") == "/photos/nas"
    assert roots.root_of("/photos/nasty/a.jpg") == "/photos"
    assert roots.root_of("/photos") == "/photos"
    assert roots.root_of("/elsewhere") == "/"
    with pytest.raises(OutsideImageRoots):
        ImageRoots(["/photos"]).root_of("/photo")


def test_an_empty_or_missing_root_is_not_present(roots: ImageRoots, root: Path) -> None:
    assert not roots.is_present(str(root))
    (root / "a").touch()
    assert roots.is_present(str(root))
    assert not roots.is_present(f"{root}/a")
    assert not roots.is_present(f"{root}/missing")


def test_a_root_that_may_not_be_read_is_not_present(
    open_directory: Path, unprivileged: Callable[[], AbstractContextManager[None]]
) -> None:
    locked = open_directory / "locked"
    (locked / "inner").mkdir(parents=True)
    (locked / "inner" / "a").touch()
    (open_directory / "loop").symlink_to("loop")
    roots = ImageRoots([locked])
    locked.chmod(0)
    with unprivileged():
        assert not roots.is_present(str(locked))
        assert not roots.is_present(f"{locked}/inner")
    locked.chmod(0o700)
    assert not roots.is_present(f"{open_directory}/loop")
    assert not roots.is_present(f"{open_directory}/{'n' * 300}")


@pytest.mark.parametrize("code", [errno.ESTALE, errno.EACCES, errno.EIO])
def test_a_root_whose_mount_fails_while_it_is_listed_is_not_present(
    roots: ImageRoots, root: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    class FailingListing:
        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def __next__(self) -> os.DirEntry[str]:
            raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:  # No mount breaks at a test's word.
        patch.setattr(os, "scandir", lambda _: FailingListing())
        assert not roots.is_present(str(root))


def test_roots_are_values(roots: ImageRoots, root: Path) -> None:
    assert ImageRoots([f"{root}/.", root]) == roots == pickle.loads(pickle.dumps(roots))
    assert hash(ImageRoots([root])) == hash(roots)
    assert str(root) in repr(roots)


def test_a_link_that_keeps_changing_never_leads_out(
    roots: ImageRoots, root: Path, tmp_path: Path
) -> None:
    (root / "inside.jpg").write_bytes(b"inside")
    (tmp_path / "outside.jpg").write_bytes(b"outside")
    link, spare = root / "link.jpg", root / "spare"
    link.symlink_to("inside.jpg")
    is_over = threading.Event()

    def swap() -> None:
        while not is_over.is_set():
            for target in (tmp_path / "outside.jpg", root / "inside.jpg"):
                spare.symlink_to(target)
                spare.replace(link)

    swapper = threading.Thread(target=swap)
    swapper.start()
    seen: set[bytes | FailureReason] = set()
    try:
        for _ in range(2000):
            try:
                with roots.open_image(str(link)) as opened:
                    seen.add(os.read(opened.descriptor, 100))
            except UnusableImage as unusable:
                seen.add(unusable.reason)
    finally:
        is_over.set()
        swapper.join()
    assert seen <= {b"inside", FailureReason.OUTSIDE_ROOTS}


def test_the_file_that_was_opened_counts_and_not_its_name(roots: ImageRoots, root: Path) -> None:
    path = root / "a.jpg"
    path.write_bytes(b"first")
    with roots.open_image(str(path)) as opened:
        path.unlink()
        path.write_bytes(b"second")
        assert os.read(opened.descriptor, 100) == b"first"


def test_what_lies_outside_is_not_opened(roots: ImageRoots, root: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    (root / "link.jpg").symlink_to(tmp_path / "a.jpg")
    assert reason_of(roots, root / "link.jpg") is FailureReason.OUTSIDE_ROOTS
    assert reason_of(roots, tmp_path / "a.jpg") is FailureReason.OUTSIDE_ROOTS
    assert reason_of(ImageRoots(), tmp_path / "a.jpg") is FailureReason.OUTSIDE_ROOTS


def test_roots_that_are_mounted_elsewhere_are_opened_there_by_the_controllers_names(
    tmp_path: Path,
) -> None:
    there = tmp_path / "data"
    there.mkdir()
    (there / "a.jpg").write_bytes(b"picture")
    (tmp_path / "secret").write_bytes(b"outside")
    (there / "link.jpg").symlink_to(tmp_path / "secret")
    roots = ImageRoots(["/srv/photos"]).placed(PathMapping([("/srv/photos", str(there))]))
    roots = pickle.loads(pickle.dumps(roots))
    with roots.open_image("/srv/photos/a.jpg") as opened:
        assert os.read(opened.descriptor, 10) == b"picture"
    assert roots.is_present("/srv/photos")
    assert roots.find_root("/srv/photos/a.jpg") == "/srv/photos"
    assert reason_of(roots, "/srv/photos/link.jpg") is FailureReason.OUTSIDE_ROOTS
    # A name that the mapping does not lead below the root is none of it.
    assert reason_of(roots, tmp_path / "secret") is FailureReason.OUTSIDE_ROOTS
    assert roots != ImageRoots(["/srv/photos"])
