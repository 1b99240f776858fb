"""How hosts on other machines are kept, whatever happens on the way to them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from imagedex.core.errors import EngineError, HostRefused, HostUnreachable
from imagedex.engine import ClusterPlan, DaskEngine, HostSpec, HostState
from imagedex.engine._host_times import HostTimes
from imagedex.engine._worker_config import WorkerConfig
from imagedex.engine._worker_log import WorkerLog
from imagedex.engine._worker_process import WorkerProcess
from imagedex.testing.engine import DEADLINE_SECONDS, describe, echo, wait_until
from integration.engine.nearby import Road

SOON = HostTimes(unreachable_pauses=(0.01, 0.05), unfit_pause=0.1)

EngineMaker = Callable[..., DaskEngine]


@pytest.fixture
def make_engine(tmp_path: Path) -> Iterator[EngineMaker]:
    """Give what makes an engine with one nearby host and, unless asked for, no local worker."""
    with ExitStack() as engines:

        def make(road: Road, *, python: str = sys.executable, **changes: Any) -> DaskEngine:
            plan = ClusterPlan(
                authority=tmp_path / "tls",
                known_hosts=tmp_path / "unused",
                listen_host="127.0.0.1",
                listen_port=0,
                worker_ports="0",
            )
            options = {"workers": 0, "times": SOON, "log_dir": tmp_path / "logs", **changes}
            engine = DaskEngine(
                cluster=plan,
                hosts=[HostSpec(name="h1", address="127.0.0.1", python=python)],
                connect=road.connect,
                **options,
            )
            engines.callback(engine.close)
            return engine

        yield make


def host_of(engine: DaskEngine) -> tuple[HostState, str]:
    """Return state and reason of the only host."""
    [host] = engine.hosts()
    return host.state, host.reason or ""


def test_what_a_shell_prints_before_the_agent_speaks_is_passed_over(
    make_engine: EngineMaker, tmp_path: Path
) -> None:
    engine = make_engine(Road(tmp_path, greeting='Welcome!\\n{"motd": 1}\\n\\n'))
    engine.start()
    assert engine.submit(describe, None).result(DEADLINE_SECONDS)["host"] == "h1"


def test_a_host_that_only_babbles_is_refused(make_engine: EngineMaker, tmp_path: Path) -> None:
    babbler = tmp_path / "python"
    babbler.write_text("#!/bin/sh\nexec yes\n")
    babbler.chmod(0o755)
    engine = make_engine(Road(tmp_path), python=str(babbler))
    with pytest.raises(EngineError, match=r"agent on host h1 is not understood"):
        engine.start()


def test_a_host_is_tried_until_it_is_there(make_engine: EngineMaker, tmp_path: Path) -> None:
    road = Road(tmp_path)
    road.accidents = [
        HostUnreachable("no route"),
        HostRefused("another key"),
        ValueError("what nobody has thought of"),
        *[HostUnreachable("no route") for _ in range(4)],
    ]
    engine = make_engine(road, workers=1)  # With which it starts, whatever the host does.
    engine.start()
    wait_until(lambda: host_of(engine) == (HostState.READY, ""), "the host")
    assert road.attempts == 8
    assert {worker.host for worker in engine.workers()} >= {"h1"}


def test_a_start_ends_when_no_host_is_of_use_and_says_why_of_each(
    make_engine: EngineMaker, tmp_path: Path
) -> None:
    road = Road(tmp_path)
    road.accidents = [HostRefused("Host h1 shows another key.")]
    engine = make_engine(road)
    with pytest.raises(EngineError, match="shows another key"):
        engine.start()
    # And anew it may.
    engine.start()
    assert engine.submit(echo, 1).result(DEADLINE_SECONDS) == 1


def test_an_agent_gets_another_certificate_before_its_own_ends(
    make_engine: EngineMaker, tmp_path: Path
) -> None:
    road = Road(tmp_path)
    engine = make_engine(road)
    engine.start()
    assert {worker.worker_id for worker in engine.workers()} == {"h1-1"}
    session = engine._session
    assert session is not None
    # As after 23 days.
    session._kept["h1"]._times = replace(SOON, leaf=0.0)
    wait_until(lambda: road.attempts == 2, "a second agent")
    session._kept["h1"]._times = SOON
    wait_until(
        lambda: {worker.worker_id for worker in engine.workers()} == {"h1-1.2.1"},
        "the worker of the second agent",
    )
    assert road.attempts == 2
    assert engine.submit(echo, 1).result(DEADLINE_SECONDS) == 1


def test_a_worker_that_no_host_has_started_is_sent_away(
    make_engine: EngineMaker, tmp_path: Path
) -> None:
    engine = make_engine(Road(tmp_path))
    engine.start()
    session = engine._session
    assert session is not None
    assert session._ticket is not None
    # As one of an agent that the controller has given up.
    config = WorkerConfig(
        worker_id="h1-1.0.7",
        host="h1",
        threads=1,
        scheduler_address=session._ticket.address,
        scratch_directory=str(tmp_path),
        controller_pid=os.getpid(),
        credentials=session._ticket.authority.leaf("h1"),
    )
    worker = WorkerProcess(
        config,
        module="imagedex.engine._dask_worker",
        module_path=[entry for entry in sys.path if entry],
        log=WorkerLog(tmp_path / "stale.log"),
    )
    assert worker.wait() == "ended with status 1"
    assert [worker.worker_id for worker in engine.workers()] == ["h1-1"]
