"""Image roots: which names an outsider may use, and which files are really opened."""

from __future__ import annotations

import os
import pickle
import threading
from pathlib import Path

import pytest

from imagedex.core.errors import InvalidRequest, OutsideImageRoots
from imagedex.core.images import FailureReason
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
