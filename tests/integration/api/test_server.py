"""The API behind a real HTTP server on loopback, spoken to byte by byte where it matters."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import uvicorn

from imagedex.access import Scope
from imagedex.api import create_api
from imagedex.testing.application import InMemoryApplication
from support.api import plain_log

MAX_BODY_BYTES = 64 * 1024
MAX_BODY_SECONDS = 1.0
DEADLINE_SECONDS = 60.0


@pytest.fixture(autouse=True)
def _plain_log() -> Iterator[None]:
    with plain_log():
        yield


@pytest.fixture
def application(tmp_path: Path) -> InMemoryApplication:
    return InMemoryApplication(
        tmp_path / "home", image_roots=(tmp_path,), server={"max_body_bytes": MAX_BODY_BYTES}
    )


@pytest.fixture
def port(application: InMemoryApplication) -> Iterator[int]:
    """Serve on a free port; the socket listens before the server runs, so nobody must wait."""
    api = create_api(application, max_body_seconds=MAX_BODY_SECONDS)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(api, log_config=None, lifespan="off"))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        yield listener.getsockname()[1]
        server.should_exit = True
        thread.join(DEADLINE_SECONDS)
        assert not thread.is_alive()


@pytest.fixture
def key(application: InMemoryApplication) -> str:
    return application.key_with(Scope.ADMIN)


def exchange(port: int, *parts: bytes) -> bytes:
    """Send the parts and return all that comes back until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_SECONDS) as connection:
        for part in parts:
            connection.sendall(part)
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
        return received


def head(path: str, key: str, *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"X-API-Key: {key}", *headers, "", ""]
    return "\r\n".join(lines).encode()


def test_calls_work_over_http(port: int, key: str) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"X-API-Key": key}) as client:
        assert client.get("/health").json() == {"status": "alive"}
        answer = client.post("/api/v1/query", json={"text": "a dog"})
        assert answer.status_code == 200
        # The second request on the same connection shows that the first was ended cleanly.
        assert client.get("/api/v1/index/jobs").status_code == 200


def test_body_that_is_announced_as_too_large_is_413_before_it_is_sent(port: int, key: str) -> None:
    received = exchange(
        port,
        head(
            "/api/v1/query",
            key,
            "Content-Type: application/json",
            f"Content-Length: {MAX_BODY_BYTES + 1}",
        ),
    )
    assert received.startswith(b"HTTP/1.1 413")
    assert b"application/problem+json" in received
    assert b"body-too-large" in received


def test_body_with_an_absurd_length_is_refused(port: int, key: str) -> None:
    received = exchange(
        port, head("/api/v1/query", key, f"Content-Length: {'9' * 4500}", "Connection: close")
    )
    assert received[9:12] in (b"400", b"413")


def test_chunked_body_is_counted_as_it_comes(port: int, key: str) -> None:
    chunk = b"%x\r\n%s\r\n" % (16 * 1024, b" " * 16 * 1024)
    received = exchange(
        port,
        head("/api/v1/query", key, "Content-Type: application/json", "Transfer-Encoding: chunked"),
        *[chunk] * 5,
    )
    assert received.startswith(b"HTTP/1.1 413")
    assert b"body-too-large" in received


def test_body_of_too_many_entries_is_422_before_it_has_arrived(port: int, key: str) -> None:
    begin = head(
        "/api/v1/index/notify",
        key,
        "Content-Type: application/json",
        f"Content-Length: {MAX_BODY_BYTES}",
    )
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_SECONDS) as connection:
        connection.sendall(begin + b"[]," * 10_200)
        received = connection.recv(65536)
        assert received.startswith(b"HTTP/1.1 422")
        assert b"body-too-complex" in received
        # What still comes belongs to that request, and the next one is answered.
        connection.sendall(b" " * (MAX_BODY_BYTES - 3 * 10_200))
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")


def test_body_of_exactly_the_limit_is_read(port: int, key: str) -> None:
    document = json.dumps({"text": "a dog"}).encode()
    content = document + b" " * (MAX_BODY_BYTES - len(document))

    def chunks() -> Iterator[bytes]:
        yield content

    for body in (content, chunks()):
        answer = httpx.post(
            f"http://127.0.0.1:{port}/api/v1/query",
            content=body,
            headers={"X-API-Key": key, "Content-Type": "application/json"},
        )
        assert answer.status_code == 200, answer.text


def test_body_that_never_ends_is_408(port: int, key: str) -> None:
    received = exchange(
        port,
        head("/api/v1/query", key, "Content-Type: application/json", "Content-Length: 100"),
        b'{"text":',
    )
    assert received.startswith(b"HTTP/1.1 408")
    assert b"body-timeout" in received


def test_client_that_leaves_in_the_middle_of_its_body_is_no_crash(
    port: int, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_SECONDS) as connection:
        connection.sendall(
            head("/api/v1/query", key, "Content-Type: application/json", "Content-Length: 100")
        )
    entries: list[dict[str, object]] = []
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not any(entry.get("status") == 499 for entry in entries):
        assert time.monotonic() < deadline, entries
        assert httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
        entries += [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert not [entry for entry in entries if entry["event"] == "request_crashed"]


def test_stranger_is_refused_without_his_body_being_read(port: int) -> None:
    received = exchange(
        port,
        head(
            "/api/v1/query",
            "wrong",
            "Content-Type: application/json",
            "Content-Length: 100",
            "Connection: close",
        ),
    )
    assert received.startswith(b"HTTP/1.1 401")


def test_header_cannot_be_injected_into_the_answer(port: int, key: str) -> None:
    for value in ("ok%0d%0aX-Injected: 1", "ok\rX-Injected: 1", "ok\x0bX-Injected: 1"):
        received = exchange(
            port,
            f"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: {value}\r\n"
            "Connection: close\r\n\r\n".encode(),
        )
        assert b"X-Injected" not in received
    received = exchange(
        port,
        b"GET /api/v1/index/status/a%0d%0aX-Injected:%201 HTTP/1.1\r\nHost: localhost\r\n"
        b"X-API-Key: " + key.encode() + b"\r\nConnection: close\r\n\r\n",
    )
    header, _, _ = received.partition(b"\r\n\r\n")
    assert header.startswith(b"HTTP/1.1 404")
    assert b"X-Injected" not in header


def test_two_lengths_for_one_body_are_refused(port: int, key: str) -> None:
    received = exchange(
        port,
        head(
            "/api/v1/query",
            key,
            "Content-Type: application/json",
            "Content-Length: 5",
            "Transfer-Encoding: chunked",
            "Connection: close",
        ),
        b"0\r\n\r\n",
    )
    assert not received.startswith(b"HTTP/1.1 2")


def test_many_clients_at_once_all_get_their_own_answer(port: int, key: str) -> None:
    wrong: list[str] = []

    def ask(number: int) -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            for turn in range(10):
                text = f"dog {number} {turn}"
                answer = client.post(
                    "/api/v1/query", json={"text": text}, headers={"X-API-Key": key}
                )
                if answer.status_code != 200 or answer.json()["query"] != text:
                    wrong.append(answer.text)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_SECONDS)
    assert wrong == []
