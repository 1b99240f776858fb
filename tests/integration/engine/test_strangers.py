"""Whoever reaches the engine's ports without a leaf of its authority is turned away, unread."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import struct
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from distributed import Scheduler
from distributed.comm.registry import backends
from distributed.comm.tcp import BaseTCPBackend, TLSBackend, TLSListener
from distributed.protocol.core import dumps
from distributed.protocol.serialize import ToPickle
from distributed.protocol.utils import pack_frames

from imagedex.core.errors import EngineError
from imagedex.engine import DaskEngine
from imagedex.engine._authority import Authority
from imagedex.engine._dask_config import configure_dask
from imagedex.engine._dask_tls import MAX_HANDSHAKES, GuardedTLSListener
from imagedex.testing.engine import DEADLINE_SECONDS, echo, wait_until
from integration.engine import strangers

# Two seconds are asked, and kept, on a machine that has no other tests to run.
REFUSED_SECONDS = 4.5

UNPICKLED: list[str] = []
"""What this process was asked to find while it unpickled, by the hook below."""


def _note_unpickling(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "pickle.find_class":
        UNPICKLED.append(f"{arguments[0]}.{arguments[1]}")


class Bait:
    """Makes a directory in whoever unpickles it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self._path),)


def bait_at(path: Path) -> bytes:
    """Return a message as Dask sends them; who reads it makes the directory."""
    packed = pack_frames(dumps({"op": "identity", "bait": ToPickle(Bait(path))}))
    return struct.pack("<Q", len(packed)) + packed


@pytest.fixture
def bait(tmp_path: Path) -> Iterator[bytes]:
    """Give a message that nobody may open."""
    yield bait_at(tmp_path / "bitten")
    assert not (tmp_path / "bitten").exists()
    assert not any("mkdir" in name for name in UNPICKLED)


sys.addaudithook(_note_unpickling)


def ports_of_the_engine() -> set[tuple[str, int]]:
    """Return where this process and its workers listen."""
    me = psutil.Process()
    workers = [
        child for child in me.children() if "imagedex.engine._dask_worker" in child.cmdline()
    ]
    return {
        (connection.laddr.ip, connection.laddr.port)
        for process in (me, *workers)
        for connection in process.net_connections()
        if connection.status == psutil.CONN_LISTEN
    }


def test_strangers_are_refused_soon_and_nothing_they_say_is_unpickled(
    dask_engine: DaskEngine, tmp_path: Path, bait: bytes
) -> None:
    session = dask_engine._session
    assert session is not None
    assert session._ticket is not None
    foreign = Authority.new().leaf("controller")
    expired = session._ticket.authority.leaf("gpu1", days=-0.001)
    # Dask's pages, which a new worker shuts down, may be there for a moment.
    wait_until(lambda: len(ports_of_the_engine()) == 3, "the engine's ports alone")
    addresses = ports_of_the_engine()
    for address in addresses:
        receptions = {
            "silent": strangers.silent(address),
            "plain": strangers.speak(address, bait),
            "TLS without a certificate": strangers.shake_hands(address, bait, tmp_path, None),
            "TLS with a foreign one": strangers.shake_hands(address, bait, tmp_path, foreign),
            "TLS with an expired one": strangers.shake_hands(address, bait, tmp_path, expired),
        }
        assert {kind: reception.answer for kind, reception in receptions.items()} == dict.fromkeys(
            receptions, b""
        )
        slowest = max(reception.seconds for reception in receptions.values())
        assert slowest < REFUSED_SECONDS, receptions
    assert dask_engine.submit(echo, "still here").result(DEADLINE_SECONDS) == "still here"


def test_the_same_message_from_one_of_ours_would_have_been_read(
    dask_engine: DaskEngine, tmp_path: Path
) -> None:
    session = dask_engine._session
    assert session is not None
    assert session._ticket is not None
    address = ("127.0.0.1", session._ticket.port)
    known = session._ticket.authority.leaf("gpu1")
    bait = bait_at(tmp_path / "bitten")
    strangers.shake_hands(address, bait, tmp_path, known)
    assert (tmp_path / "bitten").is_dir()
    assert any("mkdir" in name for name in UNPICKLED)
    UNPICKLED.clear()


def test_two_hundred_strangers_at_once_hold_nobody_up(dask_engine: DaskEngine) -> None:
    session = dask_engine._session
    assert session is not None
    assert session._ticket is not None
    address = ("127.0.0.1", session._ticket.port)
    with ThreadPoolExecutor(200) as crowd:
        crowding = [crowd.submit(strangers.silent, address) for _ in range(200)]
        assert dask_engine.submit(echo, "meanwhile").result(DEADLINE_SECONDS) == "meanwhile"
        receptions = [stranger.result(DEADLINE_SECONDS) for stranger in crowding]
    assert {reception.answer for reception in receptions} == {b""}
    assert max(reception.seconds for reception in receptions) < REFUSED_SECONDS


def test_one_of_ours_gets_in_past_a_crowd(dask_engine: DaskEngine, tmp_path: Path) -> None:
    session = dask_engine._session
    assert session is not None
    assert session._ticket is not None
    address = ("127.0.0.1", session._ticket.port)
    known = session._ticket.authority.leaf("gpu1")
    crowd = [socket.create_connection(address) for _ in range(2 * MAX_HANDSHAKES)]
    try:
        # At the first try: Dask would try again, but not after every way of being turned away.
        strangers.shake_hands(address, bait_at(tmp_path / "bitten"), tmp_path, known)
        assert (tmp_path / "bitten").is_dir()
    finally:
        UNPICKLED.clear()
        for stranger in crowd:
            stranger.close()


def test_a_worker_that_comes_while_strangers_crowd_the_door_gets_in(
    dask_engine: DaskEngine,
) -> None:
    session = dask_engine._session
    assert session is not None
    assert session._ticket is not None
    address = ("127.0.0.1", session._ticket.port)
    before = {worker.worker_id for worker in dask_engine.workers()}
    # This process may have other children, as the servers of forks and of databases.
    worker = next(
        child
        for child in psutil.Process().children()
        if "imagedex.engine._dask_worker" in child.cmdline()
    )
    crowd = [socket.create_connection(address) for _ in range(80)]
    try:
        worker.kill()
        wait_until(
            lambda: (
                len(dask_engine.workers()) == 2
                and {worker.worker_id for worker in dask_engine.workers()} != before
            ),
            "another worker to take its place",
        )
    finally:
        for stranger in crowd:
            stranger.close()


def test_nothing_listens_beyond_this_machine_without_tls() -> None:
    configure_dask()

    async def listen() -> None:
        security = {"require_encryption": False}
        async with Scheduler(host="0.0.0.0", port=0, protocol="tcp", security=security):
            pytest.fail("it listens")

    with pytest.raises(RuntimeError) as caught:
        asyncio.run(listen())
    assert "without TLS" in str(caught.value.__cause__)
    backend: Any = backends["tcp"]
    for loc in ("0.0.0.0:0", "[::]:0", "10.213.0.1:0"):
        with pytest.raises(EngineError, match="without TLS"):
            backend.get_listener(loc, None, True)
    for scheme in ("ws", "wss", "ucx"):
        assert scheme not in backends


def test_a_context_that_asks_for_no_certificate_is_refused() -> None:
    configure_dask()
    backend: Any = backends["tls"]
    with pytest.raises(EngineError, match="without asking"):
        backend.get_listener(
            "127.0.0.1:0", None, True, ssl_context=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        )


def test_dask_has_what_the_guard_stands_on() -> None:
    configure_dask()
    assert GuardedTLSListener._prepare_stream is not TLSListener._prepare_stream
    assert isinstance(backends["tls"], TLSBackend)
    assert "_listener_class" in vars(TLSBackend)
    assert "_prepare_stream" in vars(TLSListener)
    assert "_get_server_args" in vars(TLSListener)
    assert "_listener_class" not in vars(BaseTCPBackend)
    backend: Any = backends["tls"]
    listener = backend.get_listener("127.0.0.1:0", None, True, ssl_context=_asking_context())
    assert isinstance(listener, GuardedTLSListener)


def _asking_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def test_the_log_is_not_filled_by_whoever_tries_all_day(
    dask_engine: DaskEngine, caplog: pytest.LogCaptureFixture
) -> None:
    session = dask_engine._session
    assert session is not None
    assert session._ticket is not None
    for _ in range(20):
        strangers.speak(("127.0.0.1", session._ticket.port), b"GET / HTTP/1.1\r\n\r\n")
    time.sleep(0.1)
    assert sum("turned away" in record.message for record in caplog.records) <= 1
