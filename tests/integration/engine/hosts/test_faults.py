"""Hosts that are cut off, hang, or are not what they should be."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from imagedex.core.errors import EngineError
from imagedex.core.paths import PathMapping
from imagedex.engine import HostState
from imagedex.engine._host_times import HostTimes
from imagedex.testing.engine import (
    DEADLINE_SECONDS,
    describe,
    echo,
    note_and_wait,
    wait_until,
)
from integration.engine import hostile_chunks
from integration.engine.hosts.conftest import EngineMaker, spec_of, state_of, wait_for_state
from integration.engine.processes import is_alive
from support.netns import Lan, NetHost

pytestmark = pytest.mark.hosts

AGENT = "imagedex.engine._agent"
WORKER = "imagedex.engine._dask_worker"

# Asked of a cluster: chunks of a host that is cut off run again, and it works again.
RERUN_SECONDS = 20.0
BACK_SECONDS = 30.0

SOON = HostTimes(unfit_pause=0.5)


def test_a_cut_link_has_its_chunks_run_elsewhere_and_the_host_comes_back(
    make_engine: EngineMaker, two_hosts: tuple[NetHost, NetHost], tmp_path: Path
) -> None:
    engine = make_engine(*map(spec_of, two_hosts))
    engine.start()
    wait_until(lambda: len(engine.workers()) == 2, "a worker on each host")
    chunks = [
        engine.submit(note_and_wait, (str(tmp_path), f"began-{number}", "gate"))
        for number in range(2)
    ]
    wait_until(lambda: len(list(tmp_path.glob("began-?"))) == 2, "both chunks to begin")
    host = two_hosts[0]
    [cut_off] = host.running(WORKER)
    [mark] = [m for m in tmp_path.glob("began-?") if int(m.read_text()) == cut_off]
    mark.unlink()
    host.cut()
    try:
        cut_at = time.monotonic()
        # The other host's worker has room for a second one.
        wait_until(mark.exists, "the chunk of the host that was cut off to begin again")
        rerun = time.monotonic() - cut_at
        assert int(mark.read_text()) in two_hosts[1].running(WORKER)
        assert state_of(engine, "h1") is HostState.UNREACHABLE
        wait_until(lambda: not host.running(WORKER), "the deadman to end the workers")
        wait_until(lambda: not host.running(AGENT), "the agent to end")
        gone = time.monotonic() - cut_at
        assert not is_alive(cut_off)
    finally:
        host.mend()
    mended_at = time.monotonic()
    (tmp_path / "gate").touch()
    for chunk in chunks:
        chunk.result(DEADLINE_SECONDS)
    wait_until(lambda: len(engine.workers()) == 2, "the host to be back")
    back = time.monotonic() - mended_at
    assert state_of(engine, "h1") is HostState.READY
    assert rerun < RERUN_SECONDS
    assert gone < RERUN_SECONDS
    assert back < BACK_SECONDS


def test_a_worker_that_hangs_is_ended_and_its_chunk_runs_again(
    make_engine: EngineMaker, two_hosts: tuple[NetHost, NetHost], tmp_path: Path
) -> None:
    engine = make_engine(spec_of(two_hosts[0]), silent_seconds=4.0)
    engine.start()
    chunk = engine.submit(note_and_wait, (str(tmp_path), "began", "gate"))
    wait_until((tmp_path / "began").exists, "the chunk to begin")
    hung = int((tmp_path / "began").read_text())
    (tmp_path / "began").unlink()
    (tmp_path / "gate").touch()
    os.kill(hung, signal.SIGSTOP)
    assert chunk.result(DEADLINE_SECONDS) != hung
    wait_until(lambda: not is_alive(hung), "the worker that hangs to end")


def test_a_host_whose_key_is_not_known_is_refused_with_the_line_to_add(
    make_engine: EngineMaker, two_hosts: tuple[NetHost, NetHost], tmp_path: Path
) -> None:
    known = tmp_path / "known_hosts"
    known.write_text("another.example.org ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDummy\n")
    engine = make_engine(spec_of(two_hosts[0]), known_hosts=known)
    with pytest.raises(EngineError, match=r"SHA256:.*not in.*known_hosts.*ssh-keyscan -p 22"):
        engine.start()
    assert not two_hosts[0].running(AGENT)
    assert "10.213" not in known.read_text()  # Nothing is learnt.


def test_a_host_whose_key_has_changed_is_refused(
    make_engine: EngineMaker, lan: Lan, two_hosts: tuple[NetHost, NetHost], tmp_path: Path
) -> None:
    first, second = lan.known_hosts.read_text().splitlines()[:2]
    known = tmp_path / "known_hosts"
    known.write_text(f"{first.split()[0]} {' '.join(second.split()[1:])}\n")
    engine = make_engine(spec_of(two_hosts[0]), known_hosts=known)
    with pytest.raises(EngineError, match="somebody may be between"):
        engine.start()


def test_a_host_that_does_not_know_our_key_is_told_with_the_remedy(
    make_engine: EngineMaker, lan: Lan, two_hosts: tuple[NetHost, NetHost], tmp_path: Path
) -> None:
    # Any key that is not the controller's: that of a host.
    foreign = two_hosts[1].directory / "host_key"
    engine = make_engine(spec_of(two_hosts[0]), key=foreign)
    with pytest.raises(EngineError, match=r"none of the keys .*host_key.*authorized_keys"):
        engine.start()


def test_a_host_without_our_environment_is_told_with_the_remedy(
    make_engine: EngineMaker, two_hosts: tuple[NetHost, NetHost]
) -> None:
    engine = make_engine(spec_of(two_hosts[0], python="/opt/imagedex/missing/bin/python"))
    with pytest.raises(EngineError, match=r"no agent could be started.*missing/bin/python"):
        engine.start()


def test_a_host_with_another_release_gets_no_chunks(
    make_engine: EngineMaker, two_hosts: tuple[NetHost, NetHost], tmp_path: Path
) -> None:
    other = tmp_path / "python"
    other.write_text(
        "#!/bin/sh\n"
        'echo \'{"hello": {"release": {"version": "9.9", "digest": "x", "python": "3.99", '
        '"distributed": "1"}, "cores": 1, "pid": 1}}\'\n'
        "exec cat\n"
    )
    other.chmod(0o755)
    engine = make_engine(spec_of(two_hosts[0], python=str(other)), spec_of(two_hosts[1]))
    engine.start()
    reason = wait_for_state(engine, "h1", HostState.UNFIT)
    assert reason is not None
    assert "Imagedex 9.9 where 0.1.0 is needed" in reason
    assert engine.submit(describe, None).result(DEADLINE_SECONDS)["host"] == "h2"


def test_a_host_that_lacks_a_share_waits_until_it_is_there(
    make_engine: EngineMaker, lan: Lan, two_hosts: tuple[NetHost, NetHost], tmp_path: Path
) -> None:
    share = tmp_path / "share"
    share.mkdir()
    (share / "mark").touch()
    with lan.host("bare", mounts={str(share): None}) as bare:
        engine = make_engine(
            spec_of(bare),
            spec_of(two_hosts[0]),
            check=lambda: (hostile_chunks.require_mark, str(share / "mark")),
            times=SOON,
        )
        engine.start()
        reason = wait_for_state(engine, "bare", HostState.UNFIT)
        assert reason is not None
        assert f"bare sees no '{share}/mark'" in reason
        wait_until(lambda: state_of(engine, "h1") is HostState.READY, "the other host")
        answers = [engine.submit(describe, None).result(DEADLINE_SECONDS) for _ in range(4)]
        assert {answer["host"] for answer in answers} == {"h1"}
        bare.run("umount", str(share))
        wait_for_state(engine, "bare", HostState.READY)
        engine.close()


def test_a_share_that_is_mounted_elsewhere_is_found_by_the_mapping(
    make_engine: EngineMaker, lan: Lan, tmp_path: Path
) -> None:
    share, elsewhere = tmp_path / "share", tmp_path / "elsewhere"
    for directory in (share, elsewhere):
        directory.mkdir()
    (share / "mark").touch()
    with lan.host("mapped", mounts={str(elsewhere): share}) as host:
        engine = make_engine(
            spec_of(host, paths=PathMapping([(str(share), str(elsewhere))])),
            check=lambda: (hostile_chunks.require_mark, str(share / "mark")),
        )
        engine.start()
        assert engine.submit(echo, 1).result(DEADLINE_SECONDS) == 1
        engine.close()


def test_a_chunk_that_finds_its_host_unfit_runs_elsewhere_and_the_host_is_asked_again(
    make_engine: EngineMaker, two_hosts: tuple[NetHost, NetHost], tmp_path: Path
) -> None:
    engine = make_engine(*map(spec_of, two_hosts), times=SOON)
    engine.start()
    wait_until(lambda: len(engine.workers()) == 2, "a worker on each host")
    mark = tmp_path / "h1-lacks-it"
    mark.touch()
    chunks = [engine.submit(hostile_chunks.be_unfit_on, ("h1", str(mark))) for _ in range(6)]
    assert {chunk.result(DEADLINE_SECONDS) for chunk in chunks} == {"h2"}
    mark.unlink()
    wait_until(lambda: state_of(engine, "h1") is HostState.READY, "the host to be taken back")


def test_a_worker_of_a_gpu_sees_no_other(
    make_engine: EngineMaker, two_hosts: tuple[NetHost, NetHost]
) -> None:
    engine = make_engine(spec_of(two_hosts[0], gpus=(0, 3)))
    engine.start()
    wait_until(lambda: len(engine.workers()) == 2, "a worker for each GPU")
    chunks = [
        engine.submit(hostile_chunks.read_environment, "CUDA_VISIBLE_DEVICES") for _ in range(6)
    ]
    assert {chunk.result(DEADLINE_SECONDS) for chunk in chunks} == {"0", "3"}


def test_a_start_whose_hosts_are_all_away_ends_soon_and_says_why(
    make_engine: EngineMaker, two_hosts: tuple[NetHost, NetHost]
) -> None:
    host = two_hosts[0]
    host.cut()
    try:
        engine = make_engine(spec_of(host))
        began = time.monotonic()
        with pytest.raises(EngineError, match=r"h1 .*cannot be reached"):
            engine.start()
        assert time.monotonic() - began < RERUN_SECONDS
    finally:
        host.mend()
