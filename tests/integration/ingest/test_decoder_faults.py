"""Decoder processes that hang, die, talk nonsense or lose their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from imagedex.core.errors import EngineError, ModelError
from imagedex.core.images import FailureReason, FileStamp, ImageFailure
from imagedex.ingest import DecodedImage, DecodeLimits, ImageRoots, ProcessImageDecoder
from imagedex.testing.hostile_images import encode, noise
from imagedex.testing.preprocesses import Sabotage, Saboteur

DEADLINE_SECONDS = 60.0


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def write_pictures(directory: Path, *widths: int) -> list[str]:
    paths = []
    for number, width in enumerate(widths):
        path = directory / f"{number:03}.png"
        path.write_bytes(encode(noise(width, 10, seed=number), "PNG"))
        paths.append(str(path))
    return paths


def acts(log: Path) -> list[str]:
    return log.read_text().split()[::2] if log.exists() else []


def actors(log: Path) -> list[int]:
    return [int(word) for word in log.read_text().split()[1::2]]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "acts.log"


@pytest.fixture
def make_decoder(
    tmp_path: Path, log: Path
) -> Iterator[Callable[[DecodeLimits, int], ProcessImageDecoder]]:
    made = []

    def make(limits: DecodeLimits, processes: int) -> ProcessImageDecoder:
        decoder = ProcessImageDecoder(
            roots=ImageRoots([tmp_path]),
            preprocess=Saboteur(log),
            processes=processes,
            limits=limits,
        )
        made.append(decoder)
        return decoder

    yield make
    for decoder in made:
        decoder.close()


Maker = Callable[[DecodeLimits, int], ProcessImageDecoder]


COST = {
    Sabotage.HANG: (FailureReason.DECODER_TIMEOUT, "longer than 5 seconds"),
    Sabotage.ABORT: (FailureReason.DECODER_CRASHED, "SIGABRT"),
    Sabotage.KILL: (FailureReason.DECODER_CRASHED, "SIGKILL"),
    Sabotage.EXIT: (FailureReason.DECODER_CRASHED, "exit status 3"),
    Sabotage.TALK_GARBAGE: (FailureReason.DECODER_CRASHED, "not a frame"),
    Sabotage.EXHAUST_MEMORY: (FailureReason.TOO_MANY_PIXELS, "memory"),
    Sabotage.RAISE: (FailureReason.DAMAGED, "this step cannot divide"),
}


def test_what_an_image_does_to_its_process_costs_that_image_alone(
    make_decoder: Maker, tmp_path: Path, log: Path
) -> None:
    decoder = make_decoder(DecodeLimits(timeout_seconds=5, memory_bytes=2 * 1024**3), 2)
    # Sound pictures before, between and after: 20, 21, ABORT, 22, 23, KILL, 24 …
    widths = [width for at, act in enumerate(COST) for width in (20 + 2 * at, 21 + 2 * at, act)]
    paths = write_pictures(tmp_path, *widths, 50)
    outcomes = list(decoder.decode(paths))
    assert sorted(acts(log)) == sorted(act.name for act in COST)
    for path, width, outcome in zip(paths, [*widths, 50], outcomes, strict=True):
        if not isinstance(width, Sabotage):
            assert isinstance(outcome, DecodedImage), outcome
            assert (outcome.facts.image_path, outcome.facts.width) == (path, width)
            continue
        assert isinstance(outcome, ImageFailure)
        reason, word = COST[width]
        assert (outcome.image_path, outcome.reason) == (path, reason), outcome
        assert word in outcome.detail
        status = Path(path).stat()
        assert outcome.stamp == FileStamp(status.st_size, status.st_mtime_ns)
    assert not any(_is_zombie(pid) for pid in actors(log))


def _is_zombie(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_folder_of_nothing_but_killers_gives_its_failures(
    make_decoder: Maker, tmp_path: Path
) -> None:
    decoder = make_decoder(DecodeLimits(), 2)
    outcomes = list(decoder.decode(write_pictures(tmp_path, *[Sabotage.KILL] * 4)))
    assert [outcome.reason for outcome in outcomes if isinstance(outcome, ImageFailure)] == [
        FailureReason.DECODER_CRASHED
    ] * 4


def test_a_step_that_breaks_its_contract_is_the_models_fault(
    make_decoder: Maker, tmp_path: Path
) -> None:
    decoder = make_decoder(DecodeLimits(), 1)
    paths = write_pictures(tmp_path, Sabotage.RETURN_FLOATS, 20)
    with pytest.raises(ModelError, match="float64"):
        list(decoder.decode(paths))
    assert isinstance(next(decoder.decode(paths[1:])), DecodedImage)


def test_a_child_killed_from_outside_costs_the_image_it_was_on(
    make_decoder: Maker, tmp_path: Path, log: Path
) -> None:
    decoder = make_decoder(DecodeLimits(), 1)
    paths = write_pictures(tmp_path, 20, Sabotage.HANG, 21)
    iteration = decoder.decode(paths)
    assert isinstance(next(iteration), DecodedImage)
    wait_until(lambda: acts(log) == ["HANG"])
    os.kill(actors(log)[0], signal.SIGKILL)
    killed, after = iteration
    assert isinstance(killed, ImageFailure)
    assert killed.reason is FailureReason.DECODER_CRASHED
    assert killed.image_path == paths[1]
    assert isinstance(after, DecodedImage)


def test_an_idle_child_killed_from_outside_costs_nothing(
    make_decoder: Maker, tmp_path: Path
) -> None:
    decoder = make_decoder(DecodeLimits(), 1)
    paths = write_pictures(tmp_path, 20, 21)
    before = set(psutil.Process().children())
    assert isinstance(next(decoder.decode(paths[:1])), DecodedImage)
    (child,) = set(psutil.Process().children()) - before
    child.kill()
    assert isinstance(next(decoder.decode(paths[1:])), DecodedImage)


def test_ctrl_c_does_not_reach_the_children(make_decoder: Maker, tmp_path: Path) -> None:
    decoder = make_decoder(DecodeLimits(), 1)
    paths = write_pictures(tmp_path, 20, 21)
    before = set(psutil.Process().children())
    next(decoder.decode(paths[:1]))
    (child,) = set(psutil.Process().children()) - before
    assert os.getpgid(child.pid) != os.getpgid(0)
    child.send_signal(signal.SIGINT)
    next(decoder.decode(paths[1:]))
    assert set(psutil.Process().children()) - before == {child}


def test_closing_ends_a_child_that_hangs(make_decoder: Maker, tmp_path: Path, log: Path) -> None:
    decoder = make_decoder(DecodeLimits(timeout_seconds=3600), 1)
    iteration = decoder.decode(write_pictures(tmp_path, 20, Sabotage.HANG))
    next(iteration)
    wait_until(lambda: acts(log) == ["HANG"])
    decoder.close()
    assert not psutil.pid_exists(actors(log)[0])
    with pytest.raises(EngineError):
        next(iteration)


_PARENT = """
import sys
from pathlib import Path
from imagedex.ingest import DecodeLimits, ImageRoots, ProcessImageDecoder
from imagedex.testing.preprocesses import Saboteur

directory, log = sys.argv[1:3]
decoder = ProcessImageDecoder(
    roots=ImageRoots([directory]),
    preprocess=Saboteur(Path(log)),
    processes=2,
    limits=DecodeLimits(timeout_seconds=3600),
)
for outcome in decoder.decode(sys.argv[3:]):
    print("decoded", flush=True)
"""


def test_children_do_not_outlive_a_parent_that_is_killed(tmp_path: Path, log: Path) -> None:
    paths = write_pictures(tmp_path, 20, Sabotage.HANG, 21, Sabotage.HANG)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT, str(tmp_path), str(log), *paths],
        env=environment,
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: acts(log) == ["HANG", "HANG"])
        children = psutil.Process(parent.pid).children(recursive=True)
        assert {child.pid for child in children} == set(actors(log))
    finally:
        parent.kill()
        parent.wait()
    wait_until(lambda: not any(child.is_running() for child in children))


def test_a_file_that_is_replaced_by_a_link_out_is_never_read(
    tmp_path: Path, make_decoder: Maker
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    secret = tmp_path / "secret.png"
    secret.write_bytes(encode(noise(33, 10), "PNG"))
    (sound,) = write_pictures(root, 20)
    decoder = ProcessImageDecoder(roots=ImageRoots([root]), preprocess=Saboteur(tmp_path / "log"))
    before = next(decoder.decode([sound]))
    assert isinstance(before, DecodedImage)
    Path(sound).unlink()
    Path(sound).symlink_to(secret)
    after = next(decoder.decode([sound]))
    decoder.close()
    assert isinstance(after, ImageFailure)
    assert after.reason is FailureReason.OUTSIDE_ROOTS
