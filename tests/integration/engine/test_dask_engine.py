"""The engine with real processes passes the suite of all engines."""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from distributed.scheduler import TaskGroup

from imagedex.engine import DaskEngine, Engine
from imagedex.testing.engine import (
    DEADLINE_SECONDS,
    EngineLifeSuite,
    EngineSuite,
    describe,
    echo,
    wait_until,
)
from integration.engine import hostile_chunks


class TestDaskEngine(EngineSuite):
    @pytest.fixture
    def engine(self, dask_engine: DaskEngine) -> Engine:
        return dask_engine


class TestDaskEngineLife(EngineLifeSuite):
    @pytest.fixture
    def stopped(self, tmp_path: Path) -> Iterator[Engine]:
        engine = DaskEngine(workers=1, log_dir=tmp_path / "logs")
        yield engine
        engine.close()


def worker_processes() -> list[psutil.Process]:
    """Return the worker processes of this process."""
    return [
        process
        for process in psutil.Process().children()
        if "imagedex.engine._dask_worker" in process.cmdline()
    ]


def listening_ports(process: psutil.Process) -> set[tuple[str, int]]:
    """Return the addresses at which a process listens."""
    return {
        (connection.laddr.ip, connection.laddr.port)
        for connection in process.net_connections()
        if connection.status == psutil.CONN_LISTEN
    }


def test_workers_run_at_low_priority_with_their_share_of_the_cores(
    dask_engine: DaskEngine,
) -> None:
    processes = worker_processes()
    assert len(processes) == 2
    niceness = min(psutil.Process().nice() + 10, 19)
    assert {process.nice() for process in processes} == {niceness}
    assert {os.sched_getscheduler(process.pid) for process in processes} == {os.SCHED_BATCH}
    share = max(1, len(os.sched_getaffinity(0)) // 2)
    facts = dask_engine.submit(describe, None).result(DEADLINE_SECONDS)
    assert facts["threads"] == share
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        answer = dask_engine.submit(hostile_chunks.read_environment, name)
        assert answer.result(DEADLINE_SECONDS) == str(share)


def test_ctrl_c_leaves_the_workers_alone(dask_engine: DaskEngine) -> None:
    before = worker_processes()
    for process in before:
        # The terminal signals the group that it runs in the foreground: the controller's.
        assert os.getpgid(process.pid) == process.pid != os.getpgrp()
        process.send_signal(signal.SIGINT)
    for future in [dask_engine.submit(echo, number) for number in range(4)]:
        future.result(DEADLINE_SECONDS)
    assert [process.pid for process in worker_processes()] == [process.pid for process in before]


def test_what_workers_write_goes_to_their_logs(
    dask_engine: DaskEngine, capfd: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        dask_engine.submit(hostile_chunks.write_output, "a decoder").result(DEADLINE_SECONDS)
    logs = sorted(dask_engine._log_dir.glob("worker-*.log"))
    assert [log.name for log in logs] == ["worker-1.log", "worker-2.log"]
    written = "".join(log.read_text() for log in logs)
    assert "a decoder printed" in written
    assert "a decoder complained" in written
    assert {log.stat().st_mode & 0o777 for log in logs} == {0o600}
    assert capfd.readouterr() == ("", "")


def test_standard_input_of_a_worker_is_empty(dask_engine: DaskEngine) -> None:
    answer = dask_engine.submit(hostile_chunks.read_input, None).result(DEADLINE_SECONDS)
    assert answer == b""


def test_a_callback_that_waits_does_not_hold_up_other_chunks(dask_engine: DaskEngine) -> None:
    entered, may_go = threading.Event(), threading.Event()

    def wait(_: object) -> None:
        entered.set()
        may_go.wait(DEADLINE_SECONDS)

    dask_engine.submit(echo, 1).add_done_callback(wait)
    assert entered.wait(DEADLINE_SECONDS)
    assert dask_engine.submit(echo, 2).result(DEADLINE_SECONDS) == 2
    may_go.set()


def test_each_process_listens_once_and_on_loopback_only(dask_engine: DaskEngine) -> None:
    for process in worker_processes():
        ports = listening_ports(process)
        assert len(ports) == 1
        assert {ip for ip, _ in ports} == {"127.0.0.1"}
    assert {ip for ip, _ in listening_ports(psutil.Process())} == {"127.0.0.1"}


def test_dask_keeps_nothing_of_chunks_that_ended(dask_engine: DaskEngine) -> None:
    for future in [dask_engine.submit(echo, number) for number in range(20)]:
        future.result(DEADLINE_SECONDS)
    session = dask_engine._session
    assert session is not None
    assert session._hub is not None
    client, scheduler = session._hub._client, session._hub._scheduler
    assert client is not None
    assert scheduler is not None
    wait_until(lambda: not scheduler.tasks, "the scheduler to forget the chunks")
    assert not client.futures
    # What statistics hold on to: a server runs for months.
    gc.collect()
    groups = [thing for thing in gc.get_objects() if isinstance(thing, TaskGroup)]
    assert len(groups) < 5
