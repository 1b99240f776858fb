"""A connection that sends too much, or nothing, is ended; others do not notice."""

from __future__ import annotations

import resource
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import uvicorn

from imagedex.access import Scope
from imagedex.api import create_api
from imagedex.cli.http_protocol import BoundedHttpProtocol
from imagedex.cli.server import raise_open_files_limit
from imagedex.testing.application import InMemoryApplication
from support.api import plain_log

DEADLINE_SECONDS = 60.0
MAX_HEAD_BYTES = 64 * 1024
CHUNKED = b"POST /api/v1/query HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
READY = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


class ImpatientHttpProtocol(BoundedHttpProtocol):
    head_seconds = 0.5


@pytest.fixture(autouse=True)
def _plain_log() -> Iterator[None]:
    with plain_log():
        yield


@pytest.fixture
def application(tmp_path: Path) -> InMemoryApplication:
    return InMemoryApplication(tmp_path / "home", image_roots=(tmp_path,))


@pytest.fixture
def port(application: InMemoryApplication, request: pytest.FixtureRequest) -> Iterator[int]:
    """Serve with the protocol that is the test's parameter, else with the one of the server."""
    protocol = getattr(request, "param", BoundedHttpProtocol)
    config = uvicorn.Config(
        create_api(application),
        http=protocol,
        log_config=None,
        lifespan="off",
        timeout_keep_alive=3600,
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        yield listener.getsockname()[1]
        server.should_exit = True
        thread.join(DEADLINE_SECONDS)
        assert not thread.is_alive()


impatiently = pytest.mark.parametrize("port", [ImpatientHttpProtocol], indirect=True)


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_SECONDS)


def received_from(connection: socket.socket) -> bytes:
    """Return all that comes until the server ends the connection."""
    received = b""
    try:
        while chunk := connection.recv(65536):
            received += chunk
    except ConnectionResetError:  # It ended with input that the server has not read.
        pass
    return received


def send_until_it_ends(connection: socket.socket, piece: bytes, *, times: int) -> int:
    """Send the piece again and again; return how often that went well."""
    for count in range(times):
        try:
            connection.sendall(piece)
        except OSError:
            return count
    return times


@pytest.mark.parametrize(
    "beginning",
    [
        b"GET /health HTTP/1.1\r\nHost: localhost\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Long: ",
        b"GET /health?",
        CHUNKED + b"0\r\n",
        CHUNKED + b"1;",
    ],
    ids=["many headers", "one header", "an address", "many trailers", "a chunk's extension"],
)
def test_head_without_end_ends_the_connection(port: int, beginning: bytes) -> None:
    piece = b"a" * 1024
    if beginning.endswith(b"\r\n"):
        piece = b"X-Filler: " + b"a" * 1012 + b"\r\n"
    with connect(port) as connection:
        connection.sendall(beginning)
        # 100 MB; the buffers of both sockets take in a few of them.
        assert send_until_it_ends(connection, piece * 100, times=1000) < 1000


def test_head_that_is_too_large_is_431(port: int) -> None:
    head = b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Long: "
    with connect(port) as connection:
        connection.sendall(head + b"a" * MAX_HEAD_BYTES)
        assert received_from(connection).startswith(b"HTTP/1.1 431 ")


def test_head_that_is_too_large_and_complete_is_431(port: int) -> None:
    lines = b"".join(b"X-%d: %s\r\n" % (number, b"a" * 1000) for number in range(70))
    with connect(port) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + lines + b"\r\n")
        received = received_from(connection)
    assert received.startswith(b"HTTP/1.1 431 ")
    assert received.count(b"HTTP/1.1") == 1


def test_head_just_below_the_limit_is_served(port: int) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        for _ in range(3):  # Heads of one connection are counted one by one.
            answer = client.get("/health", headers={"X-Long": "a" * (MAX_HEAD_BYTES - 1024)})
            assert answer.status_code == 200


def test_body_is_not_counted_as_a_head(port: int, application: InMemoryApplication) -> None:
    key = application.key_with(Scope.INDEX)
    paths = [f"{application.settings.image_roots[0]}/{n}{'x' * 100}" for n in range(10_000)]
    with httpx.Client(
        base_url=f"http://127.0.0.1:{port}", trust_env=False, headers={"X-API-Key": key}, timeout=60
    ) as client:
        for _ in range(2):
            answer = client.post("/api/v1/index/notify", json={"image_paths": paths})
            assert answer.status_code == 202, answer.text


@impatiently
@pytest.mark.parametrize(
    "beginning",
    [
        b"",
        b"GET /hea",
        b"GET /health HTTP/1.1\r\nHost: local",
        READY,
        READY + b"GET /hea",
        # The answer (401) does not wait for the body, and the body never ends.
        b"POST /api/v1/query HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{",
    ],
    ids=["nothing", "an address", "a header", "one request", "half a second one", "half a body"],
)
def test_connection_without_a_whole_head_is_ended(port: int, beginning: bytes) -> None:
    with connect(port) as connection:
        connection.sendall(beginning)
        received = received_from(connection)
    assert received.count(b"HTTP/1.1 ") == beginning.count(b"\r\n\r\n")


@impatiently
def test_connection_that_trickles_its_head_is_ended(port: int) -> None:
    with connect(port) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\n")
        connection.settimeout(0.01)
        while True:
            try:
                connection.sendall(b"X-A: b\r\n")
                assert connection.recv(1) == b""
            except TimeoutError:
                continue
            except OSError:
                pass
            break


@impatiently
def test_request_may_take_longer_than_its_head(
    port: int, application: InMemoryApplication, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_waited = threading.Event()

    def readiness() -> dict[str, str]:
        assert not has_waited.wait(3 * ImpatientHttpProtocol.head_seconds)
        return {"search": "ok"}

    monkeypatch.setattr(application, "readiness", readiness)
    answer = httpx.get(f"http://127.0.0.1:{port}/health/ready", trust_env=False)
    assert answer.status_code == 200


def test_pipelined_requests_are_all_answered(port: int) -> None:
    last = READY.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    with connect(port) as connection:
        connection.sendall(READY * 4 + last)
        assert received_from(connection).count(b"HTTP/1.1 200") == 5


def test_what_is_not_http_is_400(port: int) -> None:
    with connect(port) as connection:
        connection.sendall(b"\x16\x03\x01\x02\x00\x01\r\n\r\n")
        assert received_from(connection).startswith(b"HTTP/1.1 400")


def test_server_may_open_as_many_files_as_the_system_allows() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    low = 256
    resource.setrlimit(resource.RLIMIT_NOFILE, (low, hard))
    try:
        raise_open_files_limit()
        raised, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert raised == (65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536))
