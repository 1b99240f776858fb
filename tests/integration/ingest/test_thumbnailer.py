"""Thumbnails with a real decoder process."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import psutil
import pytest
from PIL import ExifTags, Image

from imagedex.core.errors import InvalidRequest, NotFound
from imagedex.ingest import MAX_THUMBNAIL_PIXELS, ImageRoots, Thumbnailer
from imagedex.testing.hostile_images import encode, noise, quadrants, write_hostile_files


@pytest.fixture
def thumbnailer(tmp_path: Path) -> Iterator[Thumbnailer]:
    thumbnailer = Thumbnailer(roots=ImageRoots([tmp_path]))
    yield thumbnailer
    thumbnailer.close()


def test_thumbnails_are_upright_jpegs_of_the_size_asked_for(
    thumbnailer: Thumbnailer, tmp_path: Path
) -> None:
    path = tmp_path / "portrait.jpg"
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    path.write_bytes(encode(quadrants(640, 480), "JPEG", exif=exif))
    for size in (1, 96, MAX_THUMBNAIL_PIXELS):
        image = Image.open(BytesIO(thumbnailer.jpeg(str(path), size)))
        assert image.format == "JPEG"
        assert max(image.size) == min(size, 640)
    assert Image.open(BytesIO(thumbnailer.jpeg(str(path), 96))).size == (72, 96)


def test_the_process_starts_with_the_first_thumbnail(tmp_path: Path) -> None:
    before = set(psutil.Process().children())
    thumbnailer = Thumbnailer(roots=ImageRoots([tmp_path]))
    assert set(psutil.Process().children()) == before
    path = tmp_path / "a.png"
    path.write_bytes(encode(quadrants(), "PNG"))
    thumbnailer.jpeg(str(path), 32)
    assert len(set(psutil.Process().children()) - before) == 1
    thumbnailer.close()
    thumbnailer.close()
    assert set(psutil.Process().children()) == before


def test_a_kept_thumbnail_needs_no_process_until_the_file_changes(
    thumbnailer: Thumbnailer, tmp_path: Path
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encode(noise(seed=1), "PNG"))
    before = set(psutil.Process().children())
    first = thumbnailer.jpeg(str(path), 32)
    (child,) = set(psutil.Process().children()) - before
    child.suspend()  # Whatever needs the process now would wait for it.
    try:
        assert thumbnailer.jpeg(str(path), 32) == first
    finally:
        child.resume()
    path.write_bytes(encode(noise(seed=2), "PNG"))
    os.utime(path, ns=(0, 1))
    assert thumbnailer.jpeg(str(path), 32) != first


def test_what_cannot_be_shown_is_not_found_with_its_reason(
    thumbnailer: Thumbnailer, tmp_path: Path
) -> None:
    for path in write_hostile_files(tmp_path):
        with pytest.raises(NotFound, match=r"cannot be shown: .+"):
            thumbnailer.jpeg(path, 32)
    with pytest.raises(NotFound):
        thumbnailer.jpeg("/etc/passwd", 32)
    with pytest.raises(NotFound):
        thumbnailer.jpeg("/nul\0.jpg", 32)


def test_a_file_that_became_a_link_out_is_not_shown(
    thumbnailer: Thumbnailer, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    private = tmp_path_factory.mktemp("private") / "private.png"
    private.write_bytes(encode(noise(seed=7), "PNG"))
    path = tmp_path / "a.png"
    path.write_bytes(encode(quadrants(), "PNG"))
    thumbnailer.jpeg(str(path), 32)
    path.unlink()
    path.symlink_to(private)
    with pytest.raises(NotFound, match="outside every image root"):
        thumbnailer.jpeg(str(path), 32)


@pytest.mark.parametrize("size", [-1, 0, MAX_THUMBNAIL_PIXELS + 1])
def test_a_size_out_of_range_is_an_invalid_request(thumbnailer: Thumbnailer, size: int) -> None:
    with pytest.raises(InvalidRequest, match="1 to"):
        thumbnailer.jpeg("/a.jpg", size)


def test_many_threads_get_their_own_pictures(thumbnailer: Thumbnailer, tmp_path: Path) -> None:
    expected = {}
    for number in range(8):
        path = tmp_path / f"{number}.png"
        path.write_bytes(encode(Image.new("RGB", (40, 30 + number)), "PNG"))
        expected[str(path)] = (40, 30 + number)
    sizes: dict[str, set[tuple[int, int]]] = {path: set() for path in expected}

    def ask() -> None:
        for path in expected:
            sizes[path].add(Image.open(BytesIO(thumbnailer.jpeg(path, 64))).size)

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sizes == {path: {size} for path, size in expected.items()}
