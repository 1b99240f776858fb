"""An engine with workers on two hosts over SSH passes the suite of all engines."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagedex.engine import DaskEngine, Engine, HostState
from imagedex.testing.engine import (
    DEADLINE_SECONDS,
    EngineSuite,
    describe,
    echo,
    note_and_wait,
    wait_until,
)
from integration.engine import hostile_chunks
from integration.engine.hosts.conftest import engine_on, spec_of
from integration.engine.processes import is_alive
from support.netns import Lan, NetHost

pytestmark = pytest.mark.hosts

AGENT = "imagedex.engine._agent"
WORKER = "imagedex.engine._dask_worker"


@pytest.fixture(scope="module")
def ssh_engine(
    lan: Lan, two_hosts: tuple[NetHost, NetHost], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DaskEngine]:
    """Give a started engine with a worker on each of two hosts."""
    engine = engine_on(lan, tmp_path_factory.mktemp("engine"), *map(spec_of, two_hosts))
    engine.start()
    wait_until(lambda: len(engine.workers()) == 2, "a worker on each host")
    yield engine
    engine.close()


class TestEngineOverSsh(EngineSuite):
    @pytest.fixture
    def engine(self, ssh_engine: DaskEngine) -> Engine:
        return ssh_engine


def test_hosts_are_told_with_their_workers(ssh_engine: DaskEngine) -> None:
    reports = ssh_engine.hosts()
    assert [(report.name, report.state, report.reason) for report in reports] == [
        ("h1", HostState.READY, None),
        ("h2", HostState.READY, None),
    ]
    assert all(len(report.workers) == 1 for report in reports)
    assert {worker.host for worker in ssh_engine.workers()} == {"h1", "h2"}


def test_no_secret_is_on_a_command_line_in_an_environment_a_log_or_a_file_of_a_host(
    ssh_engine: DaskEngine, two_hosts: tuple[NetHost, NetHost]
) -> None:
    secret = re.compile(rb"PRIVATE KEY|BEGIN CERTIFICATE")
    for host in two_hosts:
        processes = host.running(AGENT) + host.running(WORKER)
        assert len(processes) == 2
        for pid in processes:
            for name in ("cmdline", "environ"):
                assert not secret.search(Path(f"/proc/{pid}/{name}").read_bytes())
            for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                if descriptor.is_file():  # Deleted ones too.
                    assert not secret.search(descriptor.read_bytes())
        written = [path for path in host.state.rglob("*") if path.is_file()]
        assert {path.name for path in written} == {"agent.log", "worker-1.log", "lock"}
        for path in written:
            assert not secret.search(path.read_bytes())
            assert path.stat().st_mode & 0o077 == 0
        assert not secret.search((host.directory / "sshd.log").read_bytes())


def test_what_a_worker_writes_stays_on_its_host_however_much_it_is(
    ssh_engine: DaskEngine, two_hosts: tuple[NetHost, NetHost]
) -> None:
    before = {worker.worker_id for worker in ssh_engine.workers()}
    flood = [
        ssh_engine.submit(hostile_chunks.write_output, "x" * 2_000_000 + "flooded")
        for _ in range(4)
    ]
    for chunk in flood:
        chunk.result(DEADLINE_SECONDS)
    assert {worker.worker_id for worker in ssh_engine.workers()} == before
    logs = [log for host in two_hosts for log in host.state.rglob("worker-1.log")]
    assert any(b"flooded complained" in log.read_bytes() for log in logs)


def test_a_killed_worker_is_replaced_and_its_chunk_runs_again(
    ssh_engine: DaskEngine, tmp_path: Path
) -> None:
    chunk = ssh_engine.submit(note_and_wait, (str(tmp_path), "began", "gate"))
    wait_until((tmp_path / "began").exists, "the chunk to begin")
    killed = int((tmp_path / "began").read_text())
    (tmp_path / "began").unlink()
    os.kill(killed, signal.SIGKILL)
    wait_until((tmp_path / "began").exists, "the chunk to begin again")
    (tmp_path / "gate").touch()
    assert chunk.result(DEADLINE_SECONDS) != killed
    wait_until(lambda: len(ssh_engine.workers()) == 2, "the worker to be replaced")


def test_a_newer_agent_of_the_same_controller_ends_the_older_one(
    ssh_engine: DaskEngine, two_hosts: tuple[NetHost, NetHost]
) -> None:
    host = two_hosts[0]
    [agent], [worker] = host.running(AGENT), host.running(WORKER)
    session = ssh_engine._session
    assert session is not None
    kept = session._kept["h1"]
    # As after a cut that only the controller has noticed.
    assert kept._process is not None
    process = kept._process
    session._loop.call(process._process.channel.abort)  # type: ignore[attr-defined]
    wait_until(lambda: not is_alive(agent) and not is_alive(worker), "the older agent to end")
    wait_until(lambda: len(ssh_engine.workers()) == 2, "the newer agent's worker")
    assert len(host.running(AGENT)) == 1


def test_hosts_come_and_go_while_chunks_run(
    ssh_engine: DaskEngine, two_hosts: tuple[NetHost, NetHost], tmp_path: Path
) -> None:
    first, second = map(spec_of, two_hosts)
    before = {worker.worker_id for worker in ssh_engine.workers()}
    ssh_engine.apply([second])
    assert {worker.host for worker in ssh_engine.workers()} <= {"h2"}
    wait_until(lambda: not two_hosts[0].running(AGENT), "the agent of h1 to end")
    assert [host.name for host in ssh_engine.hosts()] == ["h2"]
    facts = ssh_engine.submit(describe, None).result(DEADLINE_SECONDS)
    assert facts["host"] == "h2"
    ssh_engine.apply([first, second])
    wait_until(lambda: len(ssh_engine.workers()) == 2, "a worker on each host")
    new = {worker.worker_id for worker in ssh_engine.workers() if worker.host == "h1"}
    assert not new & before  # No id is used twice.
    assert ssh_engine.submit(echo, 1).result(DEADLINE_SECONDS) == 1
