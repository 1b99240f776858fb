"""What systemd is told, over a real socket."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from imagedex.cli.service_manager import ServiceManager, Watchdog

DEADLINE_SECONDS = 30.0


class Listener:
    """The other end: what systemd reads."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address)
        self._socket.settimeout(DEADLINE_SECONDS)

    def next(self) -> str:
        return self._socket.recv(4096).decode()

    def forget(self) -> None:
        """Drop what has come so far."""
        self._socket.setblocking(False)
        try:
            while True:
                self._socket.recv(4096)
        except BlockingIOError:
            self._socket.settimeout(DEADLINE_SECONDS)

    def is_silent_for(self, seconds: float) -> bool:
        self._socket.settimeout(seconds)
        try:
            self._socket.recv(4096)
        except TimeoutError:
            return True
        finally:
            self._socket.settimeout(DEADLINE_SECONDS)
        return False

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def address(tmp_path: Path) -> str:
    return str(tmp_path / "notify")


@pytest.fixture
def listener(address: str) -> Iterator[Listener]:
    listener = Listener(address)
    yield listener
    listener.close()


def test_each_message_is_a_datagram(listener: Listener, address: str) -> None:
    manager = ServiceManager.of({"NOTIFY_SOCKET": address})
    manager.ready("Listening on http://127.0.0.1:8080")
    manager.alive()
    manager.stopping()

    assert listener.next() == "READY=1\nSTATUS=Listening on http://127.0.0.1:8080"
    assert listener.next() == "WATCHDOG=1"
    assert listener.next() == "STOPPING=1"


def test_the_address_may_be_an_abstract_name() -> None:
    name = f"imagedex-test-{os.getpid()}"
    listener = Listener(f"\0{name}")
    try:
        ServiceManager.of({"NOTIFY_SOCKET": f"@{name}"}).alive()
        assert listener.next() == "WATCHDOG=1"
    finally:
        listener.close()


def test_without_a_service_manager_nothing_is_told_and_nothing_watched() -> None:
    manager = ServiceManager.of({"WATCHDOG_USEC": "1000000"})
    manager.ready("all is well")
    assert manager.watchdog_seconds is None


def test_one_that_has_gone_away_costs_a_warning(address: str) -> None:
    with capture_logs() as logs:
        ServiceManager.of({"NOTIFY_SOCKET": address}).alive()
    assert [line["event"] for line in logs] == ["service_manager_not_told"]


@pytest.mark.parametrize(
    ("variables", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),  # Meant for our parent.
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_s_limit_comes_from_the_environment(
    variables: dict[str, str], seconds: float | None
) -> None:
    manager = ServiceManager.of({"NOTIFY_SOCKET": "/nowhere", **variables})
    assert manager.watchdog_seconds == seconds


def test_the_watchdog_is_told_nothing_while_a_part_does_not_move(
    listener: Listener, address: str
) -> None:
    stalled: list[str] = []
    looked = threading.Event()
    patiences: set[float] = set()

    def look(patience_seconds: float) -> list[str]:
        patiences.add(patience_seconds)
        looked.set()
        return list(stalled)

    watchdog = Watchdog(ServiceManager(address, 0.2), look)
    with capture_logs() as logs:
        watchdog.start()
        try:
            assert listener.next() == "WATCHDOG=1"
            stalled.append("api-loop")
            looked.clear()
            assert looked.wait(DEADLINE_SECONDS)
            listener.forget()  # A round may have been under way.
            assert listener.is_silent_for(0.3)
            stalled.clear()
            assert listener.next() == "WATCHDOG=1"
        finally:
            watchdog.close()

    assert patiences == {0.1}
    (line,) = [line for line in logs if line["event"] == "watchdog_not_told"]
    assert line["stalled"] == ["api-loop"]


def test_a_watchdog_that_cannot_look_tells_nothing(listener: Listener, address: str) -> None:
    looked = threading.Event()

    def fail(_: float) -> list[str]:
        looked.set()
        raise RuntimeError("no look")

    watchdog = Watchdog(ServiceManager(address, 0.2), fail)
    with capture_logs() as logs:
        watchdog.start()
        assert looked.wait(DEADLINE_SECONDS)
        assert listener.is_silent_for(0.2)
        watchdog.close()
    assert "watchdog_cannot_look" in {line["event"] for line in logs}


def test_without_a_limit_there_is_no_thread(address: str) -> None:
    watchdog = Watchdog(ServiceManager(address), lambda _: [])
    watchdog.start()
    watchdog.close()
    assert "watchdog" not in {thread.name for thread in threading.enumerate()}
