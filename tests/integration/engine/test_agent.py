"""The agent of a host as a process of its own, spoken to without SSH."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from imagedex.engine._agent_lock import AgentHeld, sole_agent
from imagedex.engine._agent_wire import Begin, Hello, line_of, read_line
from imagedex.engine._authority import Authority
from imagedex.engine._release import own_release
from imagedex.testing.engine import DEADLINE_SECONDS, wait_until
from integration.engine.processes import is_alive

HOLDER = """
import fcntl, json, os, signal, sys, time
from imagedex.engine._agent_lock import identity_of
signal.signal(signal.SIGTERM, signal.SIG_IGN)
with open(sys.argv[1], "w") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    json.dump(identity_of(os.getpid()) | json.loads(sys.argv[2]), file)
    file.flush()
    print("held", flush=True)
    time.sleep(600)
"""


class Agent:
    """A running agent."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "imagedex.engine._agent"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "XDG_STATE_HOME": str(state)},
        )

    def say(self, kind: str, content: Any) -> None:
        """Send a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(line_of(kind, content))
        self.process.stdin.flush()

    def hear(self) -> tuple[str, Any]:
        """Return what comes next."""
        assert self.process.stdout is not None
        return read_line(self.process.stdout.readline())

    def begin(self) -> None:
        """Have it serve a controller whose port nobody listens on."""
        begin = Begin(
            host="h1",
            installation="0123",
            start=1,
            scheduler_address="tls://127.0.0.1:1",
            credentials=Authority.new().leaf("h1"),
            workers=1,
            threads=1,
            gpus=(),
            paths=(),
            ports="0",
        )
        self.say("begin", begin.to_fields())
        assert self.hear()[0] == "began"

    def workers(self) -> list[int]:
        """Return its child processes."""
        children = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        return [int(pid) for path in children for pid in path.read_text().split()]

    def end(self) -> int:
        """Wait until it has ended, and return its status."""
        return self.process.wait(DEADLINE_SECONDS)


AgentMaker = Callable[[], Agent]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[AgentMaker]:
    """Give what starts an agent that has said hello."""
    with ExitStack() as agents:

        def make() -> Agent:
            agent = Agent(tmp_path / "state")

            def end() -> None:
                agent.process.kill()
                agent.process.wait()
                for pipe in (agent.process.stdin, agent.process.stdout, agent.process.stderr):
                    assert pipe is not None
                    # What was written to it may never have left.
                    with suppress(BrokenPipeError):
                        pipe.close()

            agents.callback(end)
            kind, fields = agent.hear()
            assert kind == "hello"
            assert Hello.from_fields(fields).release == own_release()
            return agent

        yield make


def test_an_agent_answers_pings_and_ends_with_its_workers_when_it_is_told_to(
    start: AgentMaker,
) -> None:
    agent = start()
    agent.begin()
    agent.say("ping", 7)
    assert agent.hear() == ("pong", 7)
    wait_until(agent.workers, "a worker")
    workers = agent.workers()
    agent.say("end", None)
    assert agent.end() == 0
    assert not any(map(is_alive, workers))


def test_an_agent_whose_controller_is_gone_ends_with_its_workers(start: AgentMaker) -> None:
    agent = start()
    agent.begin()
    wait_until(agent.workers, "a worker")
    workers = agent.workers()
    assert agent.process.stdin is not None
    agent.process.stdin.close()
    assert agent.end() == 0
    assert not any(map(is_alive, workers))


def test_no_worker_outlives_an_agent_that_is_killed(start: AgentMaker) -> None:
    agent = start()
    agent.begin()
    wait_until(agent.workers, "a worker")
    workers = agent.workers()
    agent.process.kill()
    agent.end()
    wait_until(lambda: not any(map(is_alive, workers)), "the workers to end")


@pytest.mark.parametrize("line", [b"no JSON\n", b'{"begin": {}}\n', b'{"format": "c:"}\n', b"[]\n"])
def test_an_agent_that_understands_nothing_says_so_and_ends(start: AgentMaker, line: bytes) -> None:
    agent = start()
    assert agent.process.stdin is not None
    agent.process.stdin.write(line)
    agent.process.stdin.flush()
    assert agent.hear()[0] == "failed"
    assert agent.end() == 1


def test_the_newer_agent_ends_the_older_one_and_takes_its_place(start: AgentMaker) -> None:
    older = start()
    older.begin()
    newer = start()
    newer.begin()
    assert older.end() == 0
    newer.say("ping", 1)
    assert newer.hear() == ("pong", 1)


def test_an_older_agent_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with _holder(lock) as holder, sole_agent(lock, wait_seconds=DEADLINE_SECONDS):
        assert holder.wait(DEADLINE_SECONDS) == -signal.SIGKILL
        assert json.loads(lock.read_text())["pid"] == os.getpid()


@pytest.mark.parametrize(
    "other",
    [
        {"boot": "that of another machine"},  # The lock lies in a home that both have.
        {"started": 1},  # What stands there is of one that ended, and its number was given away.
    ],
)
def test_a_process_that_only_has_the_number_of_the_holder_is_left_alone(
    tmp_path: Path, other: dict[str, Any]
) -> None:
    lock = tmp_path / "lock"
    with _holder(lock, **other) as holder:
        with (
            pytest.raises(AgentHeld, match="does not end"),
            sole_agent(lock, wait_seconds=2.0),
        ):
            pytest.fail("it was taken")
        assert holder.poll() is None


def test_the_lock_is_free_after_its_holder_and_says_nothing_of_it(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.write_text("{ what a crash has left, longer than what comes" + "." * 200)
    for _ in range(2):
        with sole_agent(lock, wait_seconds=0):
            assert json.loads(lock.read_text())["pid"] == os.getpid()
    with open(lock) as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


class _holder:  # noqa: N801 - It is used like a function.
    """Have a process hold a lock that heeds no SIGTERM."""

    def __init__(self, lock: Path, **other: Any) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(lock), json.dumps(other)], stdout=subprocess.PIPE
        )

    def __enter__(self) -> subprocess.Popen[bytes]:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"held\n"
        return self._process

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
