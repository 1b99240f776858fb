"""The decoder pool with real child processes: outcomes, order, bounds, and its life."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest

from imagedex.core.errors import EngineError, ModelError
from imagedex.core.images import FailureReason, FileStamp, ImageFailure
from imagedex.ingest import (
    DecodedImage,
    DecodeLimits,
    ImageRoots,
    KnownImage,
    ProcessImageDecoder,
)
from imagedex.testing.hostile_images import (
    FORMATS,
    encode,
    noise,
    png_bomb,
    quadrants,
    write_hostile_files,
)
from imagedex.testing.preprocesses import ReducedUnchanged, Square, Unchanged, Unloadable


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("root")


@pytest.fixture(scope="module")
def decoder(root: Path) -> Iterator[ProcessImageDecoder]:
    decoder = ProcessImageDecoder(roots=ImageRoots([root]), preprocess=Unchanged(), processes=2)
    yield decoder
    decoder.close()


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def decode_one(decoder: ProcessImageDecoder, path: Path | str) -> DecodedImage | ImageFailure:
    (outcome,) = decoder.decode([str(path)])
    return outcome


@pytest.mark.parametrize("extension", FORMATS)
def test_each_format_arrives_with_its_facts(
    decoder: ProcessImageDecoder, root: Path, extension: str
) -> None:
    path = root / f"sound.{extension}"
    path.write_bytes(encode(quadrants(), FORMATS[extension]))
    outcome = decode_one(decoder, path)
    assert isinstance(outcome, DecodedImage)
    status = path.stat()
    assert outcome.facts.image_path == str(path)
    assert outcome.facts.content_hash == hashlib.sha256(path.read_bytes()).hexdigest()
    assert outcome.facts.stamp == FileStamp(status.st_size, status.st_mtime_ns)
    assert (outcome.facts.width, outcome.facts.height) == (64, 48)
    assert outcome.facts.format == FORMATS[extension]
    assert outcome.pixels.shape == (48, 64, 3)
    assert outcome.pixels.dtype == np.uint8
    assert outcome.pixels.flags.writeable


def test_pixels_arrive_unchanged_and_of_any_shape(decoder: ProcessImageDecoder, root: Path) -> None:
    for width, height in ((1, 1), (7, 300), (900, 700)):
        picture = noise(width, height)
        path = root / "exact.png"
        path.write_bytes(encode(picture, "PNG"))
        outcome = decode_one(decoder, path)
        assert isinstance(outcome, DecodedImage)
        assert (outcome.pixels == np.asarray(picture)).all()


def test_each_hostile_file_fails_for_its_reason(
    decoder: ProcessImageDecoder, tmp_path_factory: pytest.TempPathFactory, root: Path
) -> None:
    directory = root / "hostile"
    directory.mkdir()
    written = write_hostile_files(directory)
    outcomes = list(decoder.decode(written))
    assert [outcome.image_path for outcome in outcomes if isinstance(outcome, ImageFailure)] == (
        list(written)
    )
    for outcome in outcomes:
        assert isinstance(outcome, ImageFailure)
        assert outcome.reason is written[outcome.image_path].reason, outcome
        assert outcome.detail.endswith(".")


def test_failures_that_lie_in_the_bytes_carry_the_files_stamp(
    decoder: ProcessImageDecoder, root: Path
) -> None:
    path = root / "bad.jpg"
    path.write_bytes(b"no picture at all")
    outcome = decode_one(decoder, path)
    assert isinstance(outcome, ImageFailure)
    assert outcome.stamp == FileStamp(path.stat().st_size, path.stat().st_mtime_ns)
    gone = decode_one(decoder, root / "never-there.jpg")
    assert isinstance(gone, ImageFailure)
    assert (gone.reason, gone.stamp) == (FailureReason.VANISHED, None)


def test_paths_that_no_file_can_have_fail_and_raise_nothing(decoder: ProcessImageDecoder) -> None:
    outcomes = list(
        decoder.decode(["/a\0b.jpg", "", "x" * 300, "/" + "y" * 5000, "/\ud800.jpg", "/\udcff.jpg"])
    )
    assert [outcome.reason for outcome in outcomes if isinstance(outcome, ImageFailure)] == [
        *[FailureReason.VANISHED] * 4,
        *[FailureReason.NAME_NOT_UTF8] * 2,
    ]
    assert isinstance(outcomes[-1], ImageFailure)
    assert outcomes[-1].image_path == "/\\xff.jpg"


def test_files_outside_the_roots_are_not_read(
    decoder: ProcessImageDecoder, tmp_path: Path, root: Path
) -> None:
    outside = tmp_path / "private.jpg"
    outside.write_bytes(encode(quadrants(), "JPEG"))
    link = root / "innocent.jpg"
    link.symlink_to(outside)
    for path in (outside, link, f"{root}/../{tmp_path.name}/private.jpg"):
        outcome = decode_one(decoder, path)
        assert isinstance(outcome, ImageFailure)
        assert outcome.reason in (FailureReason.OUTSIDE_ROOTS, FailureReason.VANISHED)


def test_limits_of_bytes_and_pixels_hold(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(encode(noise(64, 48), "PNG"))
    size = path.stat().st_size
    for limits, reason in (
        (DecodeLimits(max_file_bytes=size - 1), FailureReason.TOO_MANY_BYTES),
        (DecodeLimits(max_pixels=64 * 48 - 1), FailureReason.TOO_MANY_PIXELS),
        (DecodeLimits(max_file_bytes=size, max_pixels=64 * 48), None),
    ):
        decoder = ProcessImageDecoder(
            roots=ImageRoots([tmp_path]), preprocess=Unchanged(), limits=limits
        )
        outcome = decode_one(decoder, path)
        decoder.close()
        assert (outcome.reason if isinstance(outcome, ImageFailure) else None) is reason


def test_a_picture_beyond_the_memory_limit_costs_only_itself(tmp_path: Path) -> None:
    big, small = tmp_path / "big.png", tmp_path / "small.png"
    big.write_bytes(png_bomb(30_000, 30_000))  # 900 MB once it is decoded.
    small.write_bytes(encode(quadrants(), "PNG"))
    limits = DecodeLimits(max_pixels=10**10, memory_bytes=512 * 1024 * 1024)
    decoder = ProcessImageDecoder(
        roots=ImageRoots([tmp_path]), preprocess=Unchanged(), limits=limits
    )
    failed, after = decoder.decode([str(big), str(small)])
    decoder.close()
    assert isinstance(failed, ImageFailure)
    assert failed.reason is FailureReason.TOO_MANY_PIXELS
    assert "memory" in failed.detail
    assert isinstance(after, DecodedImage)


def test_a_mixed_folder_gives_one_outcome_per_path_in_order(
    decoder: ProcessImageDecoder, root: Path
) -> None:
    directory = root / "mixed"
    directory.mkdir()
    hostile = list(write_hostile_files(directory))
    sound = []
    for number in range(200 - len(hostile)):
        extension = list(FORMATS)[number % len(FORMATS)]
        path = directory / f"{number:03}.{extension}"
        path.write_bytes(encode(noise(8 + number, 8), FORMATS[extension]))
        sound.append(str(path))
    paths = hostile + sound
    random.Random(5).shuffle(paths)
    outcomes = list(decoder.decode(paths))
    assert len(outcomes) == 200
    for image_path, outcome in zip(paths, outcomes, strict=True):
        if isinstance(outcome, ImageFailure):
            assert outcome.image_path == image_path
            assert image_path in hostile
        else:
            assert outcome.facts.image_path == image_path
            assert outcome.facts.width == 8 + int(Path(image_path).stem)
            assert outcome.pixels.shape == (8, outcome.facts.width, 3)


def test_the_same_path_twice_gives_two_outcomes(decoder: ProcessImageDecoder, root: Path) -> None:
    path = root / "twice.png"
    path.write_bytes(encode(quadrants(), "PNG"))
    assert len(list(decoder.decode([str(path)] * 5))) == 5
    assert list(decoder.decode([])) == []


def test_no_more_paths_are_taken_than_the_look_ahead(root: Path) -> None:
    path = root / "ahead.png"
    path.write_bytes(encode(quadrants(), "PNG"))
    taken = []

    def paths() -> Iterator[str]:
        for number in range(50):
            taken.append(number)
            yield str(path)

    decoder = ProcessImageDecoder(
        roots=ImageRoots([root]), preprocess=Square(8), processes=2, look_ahead=3
    )
    for given, _ in enumerate(decoder.decode(paths()), start=1):
        assert len(taken) <= given + 3
    assert len(taken) == 50
    decoder.close()


def test_an_iteration_given_up_leaves_the_decoder_usable(
    decoder: ProcessImageDecoder, root: Path
) -> None:
    path = root / "given-up.png"
    path.write_bytes(encode(quadrants(), "PNG"))
    for _ in range(3):
        iteration = decoder.decode([str(path)] * 40)
        next(iteration)
        iteration.close()
    assert len(list(decoder.decode([str(path)] * 10))) == 10


def test_an_error_of_the_paths_iterable_passes_through(
    decoder: ProcessImageDecoder, root: Path
) -> None:
    path = root / "iterable.png"
    path.write_bytes(encode(quadrants(), "PNG"))

    def paths() -> Iterator[str]:
        yield str(path)
        raise LookupError("the catalog went away")

    with pytest.raises(LookupError):
        list(decoder.decode(paths()))
    assert isinstance(decode_one(decoder, path), DecodedImage)


def test_children_start_with_the_first_image_and_end_with_close(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(encode(quadrants(), "PNG"))
    me = psutil.Process()
    before = set(me.children(recursive=True))
    decoder = ProcessImageDecoder(roots=ImageRoots([tmp_path]), preprocess=Square(8), processes=2)
    assert set(me.children(recursive=True)) == before
    assert len(list(decoder.decode([str(path)] * 8))) == 8
    started = set(me.children(recursive=True)) - before
    assert 1 <= len(started) <= 2
    decoder.close()
    decoder.close()
    assert set(me.children(recursive=True)) == before
    assert not any(psutil.pid_exists(child.pid) for child in started)  # Zombies exist.
    with pytest.raises(EngineError, match="closed"):
        list(decoder.decode([str(path)]))


def test_a_child_does_not_see_the_operators_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGEDEX_ADMIN_KEY", "a-key-that-nobody-may-see")
    path = tmp_path / "picture.png"
    path.write_bytes(encode(quadrants(), "PNG"))
    before = set(psutil.Process().children())
    decoder = ProcessImageDecoder(roots=ImageRoots([tmp_path]), preprocess=Square(8))
    decode_one(decoder, path)
    (child,) = set(psutil.Process().children()) - before
    assert "IMAGEDEX_ADMIN_KEY" not in child.environ()
    decoder.close()


def test_a_step_that_cannot_be_pickled_is_refused_at_once() -> None:
    with pytest.raises(ModelError, match="top level"):
        ProcessImageDecoder(roots=ImageRoots(), preprocess=lambda image: np.asarray(image))


def test_a_step_that_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    decoder = ProcessImageDecoder(roots=ImageRoots([tmp_path]), preprocess=Unloadable())
    with pytest.raises(ModelError, match="weights are missing"):
        list(decoder.decode(["/a.jpg", "/b.jpg"]))
    decoder.close()


def test_an_interpreter_that_cannot_start_is_an_engine_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = ProcessImageDecoder(roots=ImageRoots([tmp_path]), preprocess=Square(8))
    with monkeypatch.context() as patch:
        patch.setattr("sys.executable", "/nonexistent/python")
        with pytest.raises(EngineError, match="could not be started"):
            list(decoder.decode(["/a.jpg"]))
        patch.setattr("sys.executable", "/bin/false")
        with pytest.raises(EngineError, match="exit status 1"):
            list(decoder.decode(["/a.jpg"]))
    # The same decoder recovers.
    assert isinstance(decode_one(decoder, "/a.jpg"), ImageFailure)
    decoder.close()


def test_closing_from_another_thread_ends_an_iteration(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(encode(quadrants(), "PNG"))
    decoder = ProcessImageDecoder(roots=ImageRoots([tmp_path]), preprocess=Square(8))
    iteration = decoder.decode([str(path)] * 100_000)
    next(iteration)
    closer = threading.Thread(target=decoder.close)
    closer.start()
    blamed: list[ImageFailure] = []
    with pytest.raises(EngineError):
        blamed.extend(outcome for outcome in iteration if isinstance(outcome, ImageFailure))
    closer.join()
    # The image on which a child was ended is not to be blamed for it.
    assert not blamed


def test_no_descriptor_is_left_behind(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(encode(quadrants(), "PNG"))
    before = open_descriptors()
    for _ in range(2):
        decoder = ProcessImageDecoder(roots=ImageRoots([tmp_path]), preprocess=Square(8))
        decode_one(decoder, path)
        decoder.close()
    assert open_descriptors() == before


def test_a_child_loads_no_runtime_that_it_does_not_need() -> None:
    # Each would cost every start of a child its time, and its share of the address space.
    heavy = {"onnxruntime", "pyarrow", "faiss", "distributed", "sqlalchemy", "pydantic", "fastapi"}
    program = f"import imagedex.ingest._decoder_process, sys; print({heavy!r} & sys.modules.keys())"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    loaded = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert loaded.stdout.strip() == "set()"


def test_a_preprocess_that_needs_less_gets_a_reduced_jpeg_and_the_facts_stay_full(
    root: Path,
) -> None:
    photo = quadrants().resize((640, 480))
    (root / "big.jpg").write_bytes(encode(photo, "JPEG"))
    (root / "big.png").write_bytes(encode(photo, "PNG"))
    (root / "dot.jpg").write_bytes(encode(photo.resize((1, 1)), "JPEG"))
    decoder = ProcessImageDecoder(roots=ImageRoots([root]), preprocess=ReducedUnchanged(least=200))
    paths = [str(root / name) for name in ("big.jpg", "dot.jpg", "big.png")]
    try:
        reduced, refused, whole = decoder.decode(paths)
    finally:
        decoder.close()
    assert isinstance(reduced, DecodedImage)
    assert isinstance(whole, DecodedImage)
    assert reduced.pixels.shape == (240, 320, 3)
    assert whole.pixels.shape == (480, 640, 3)
    for outcome in (reduced, whole):
        assert (outcome.facts.width, outcome.facts.height) == (640, 480)
    # What the model's code raises about one picture is that picture's failure.
    assert isinstance(refused, ImageFailure)
    assert refused.reason is FailureReason.DAMAGED
    assert "one pixel cannot be divided" in refused.detail


def test_two_threads_decode_at_once_and_each_gets_its_own_images_in_order(
    decoder: ProcessImageDecoder, root: Path
) -> None:
    paths = [str(root / f"shared-{number}.png") for number in range(24)]
    for number, path in enumerate(paths):
        Path(path).write_bytes(encode(noise(8, 8 + number), "PNG"))
    mine = decoder.decode(paths[:12])
    theirs = decoder.decode(paths[12:])
    with ThreadPoolExecutor(2) as threads:
        first, second = threads.submit(list, mine), threads.submit(list, theirs)
    outcomes = [*first.result(), *second.result()]
    assert paths == [o.facts.image_path for o in outcomes if isinstance(o, DecodedImage)]


def test_decoding_begins_before_the_first_outcome_is_asked_for(root: Path) -> None:
    path = root / "early.png"
    path.write_bytes(encode(quadrants(), "PNG"))
    paths = iter([str(path)] * 5)
    decoder = ProcessImageDecoder(roots=ImageRoots([root]), preprocess=Square(), look_ahead=3)
    try:
        outcomes = decoder.decode(paths)
        assert len(list(paths)) == 2  # The others are being decoded.
        assert len(list(outcomes)) == 3
    finally:
        decoder.close()


def test_files_that_fail_cost_no_process(root: Path) -> None:
    whole = encode(noise(64, 48), "JPEG")
    paths = []
    for number in range(12):
        paths.append(root / f"mixed-{number}.jpg")
        paths[-1].write_bytes(whole if number % 3 else whole[: len(whole) // 2])
    decoder = ProcessImageDecoder(roots=ImageRoots([root]), preprocess=Square())
    before = set(psutil.Process().children())
    try:
        outcomes = decoder.decode([str(path) for path in paths])
        assert isinstance(next(outcomes), ImageFailure)
        at_first = set(psutil.Process().children()) - before
        reasons = [o.reason if isinstance(o, ImageFailure) else None for o in outcomes]
        assert set(psutil.Process().children()) - before == at_first
    finally:
        decoder.close()
    assert len(at_first) == 1
    assert reasons == [FailureReason.TRUNCATED if n % 3 == 0 else None for n in range(1, 12)]


def test_what_is_known_by_its_hash_is_read_and_not_decoded(
    decoder: ProcessImageDecoder, root: Path
) -> None:
    known, changed = root / "known.png", root / "changed.png"
    known.write_bytes(b"no picture at all")  # Decoding it would fail.
    changed.write_bytes(encode(quadrants(), "PNG"))
    content_hash = hashlib.sha256(known.read_bytes()).hexdigest()
    paths = [str(known), str(changed)]
    hashes = {path: ["0" * 64, content_hash] for path in paths}
    first, second = decoder.decode_unknown(paths, hashes)
    status = known.stat()
    stamp = FileStamp(status.st_size, status.st_mtime_ns)
    assert first == KnownImage(str(known), content_hash, stamp)
    assert isinstance(second, DecodedImage)
    (empty,) = decoder.decode_unknown([str(root / "none.png")], {str(root / "none.png"): ["0"]})
    assert isinstance(empty, ImageFailure)
