"""Answers that no Imagedex server gives, and none at all."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from imagedex.client import (
    ClientError,
    ConnectionFailed,
    ImagedexClient,
    ServerProblem,
    ServerUnavailable,
    UnexpectedAnswer,
)

PROBLEM = {"content-type": "application/problem+json; charset=utf-8"}


def _client(answer: Callable[[httpx.Request], httpx.Response]) -> ImagedexClient:
    return ImagedexClient("http://imagedex.test", "a-key", transport=httpx.MockTransport(answer))


def test_a_page_of_a_proxy_is_no_answer_of_imagedex() -> None:
    client = _client(lambda _: httpx.Response(502, html="<h1>Bad gateway</h1>"))

    with pytest.raises(UnexpectedAnswer, match=r"HTTP 502.*proxy"):
        client.stats()


def test_a_success_with_other_fields_names_what_is_wrong() -> None:
    client = _client(lambda _: httpx.Response(200, json={"model_name": "m"}))

    with pytest.raises(UnexpectedAnswer, match=r"IndexStats \(embedding_dim: Field required"):
        client.stats()


def test_a_success_that_is_not_json_is_refused() -> None:
    client = _client(lambda _: httpx.Response(200, text="hello"))

    with pytest.raises(UnexpectedAnswer):
        client.query("a cat")


def test_a_redirect_is_not_followed_so_the_key_stays_with_the_server() -> None:
    client = _client(lambda _: httpx.Response(307, headers={"location": "http://evil.test/"}))

    with pytest.raises(UnexpectedAnswer, match="HTTP 307"):
        client.stats()


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b'{"title": 5, "detail": null}'])
def test_a_problem_whose_document_is_damaged_still_tells_its_status(body: bytes) -> None:
    client = _client(lambda _: httpx.Response(503, content=body, headers=PROBLEM))

    with pytest.raises(ServerUnavailable, match="HTTP 503") as raised:
        client.stats()
    assert raised.value.retry_after_seconds is None


def test_a_body_that_arrived_too_slowly_can_be_sent_again() -> None:
    document = {"title": "The request body did not arrive in time"}
    client = _client(lambda _: httpx.Response(408, json=document, headers=PROBLEM))

    with pytest.raises(ServerUnavailable) as raised:
        client.query("a cat")
    assert raised.value.status == 408


def test_a_problem_carries_title_detail_type_and_the_advice_to_wait() -> None:
    document = {"type": "urn:x", "title": "Busy", "detail": "Too many.", "checks": {"a": "b"}}
    headers = {**PROBLEM, "retry-after": "7"}
    client = _client(lambda _: httpx.Response(503, json=document, headers=headers))

    with pytest.raises(ServerUnavailable, match=r"^Too many\.$") as raised:
        client.stats()

    problem = raised.value
    assert (problem.title, problem.problem_type) == ("Busy", "urn:x")
    assert problem.retry_after_seconds == 7.0
    assert problem.members["checks"] == {"a": "b"}


def test_a_problem_lists_each_wrong_field_of_the_request() -> None:
    document = {
        "title": "Invalid",
        "detail": "The request is not valid.",
        "errors": [
            {"detail": "must be at least 1", "pointer": "/top_k", "parameter": ""},
            {"detail": "no such field", "pointer": "", "parameter": "x"},
            "nonsense",
        ],
    }
    client = _client(lambda _: httpx.Response(422, json=document, headers=PROBLEM))

    with pytest.raises(ServerProblem) as raised:
        client.query("a cat", top_k=0)

    assert "/top_k: must be at least 1" in str(raised.value)
    assert "x: no such field" in str(raised.value)


def test_a_problem_with_a_status_of_its_own_is_a_server_problem() -> None:
    client = _client(lambda _: httpx.Response(500, json={"title": "Oops"}, headers=PROBLEM))

    with pytest.raises(ServerProblem, match="Oops") as raised:
        client.stats()
    assert raised.value.status == 500


def test_nothing_listening_is_told_with_the_url() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))  # Bound but not listening, so connections are refused.
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        with (
            ImagedexClient(url, "a-key") as client,
            pytest.raises(ConnectionFailed, match=f"Cannot reach {url}"),
        ):
            client.stats()
        with ImagedexClient(url, "a-key") as client:
            assert not client.is_ready()


@pytest.mark.parametrize(
    "error", [httpx.ReadTimeout("slow"), httpx.RemoteProtocolError("cut"), httpx.ReadError("reset")]
)
def test_a_line_that_breaks_is_a_connection_failure(error: httpx.TransportError) -> None:
    def fail(_: httpx.Request) -> httpx.Response:
        raise error

    with pytest.raises(ConnectionFailed, match=r"http://imagedex\.test") as raised:
        _client(fail).stats()
    assert raised.value.__cause__ is error


@pytest.mark.parametrize("url", ["", "localhost:8080", "ftp://host/", "http://", "http://[::1"])
def test_what_is_no_url_of_a_server_is_refused_at_once(url: str) -> None:
    with pytest.raises(ClientError, match="URL"):
        ImagedexClient(url, "a-key")


@pytest.mark.parametrize("key", ["line\nbreak", "schlüssel", "a\0b"])
def test_a_key_that_cannot_travel_in_a_header_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(ClientError) as raised:
        ImagedexClient("http://localhost", key)
    assert key not in str(raised.value)


def test_waiting_rides_out_a_server_that_is_away_and_gives_up_when_it_stays_away() -> None:
    state: dict[str, Any] = {
        "job_id": "idx_1",
        "kind": "full",
        "status": "completed",
        "progress": {
            "total_images": 1,
            "processed_images": 1,
            "failed_images": 0,
            "percent_complete": 100.0,
        },
        "workers": [],
        "created_at": "2025-11-14T12:34:56.789Z",
        "started_at": None,
        "finished_at": None,
        "estimated_completion": None,
        "error": None,
        "a_field_of_a_later_version": 1,
    }
    answers = iter([httpx.ConnectError("refused"), httpx.Response(503, headers=PROBLEM), state])

    def answer(_: httpx.Request) -> httpx.Response:
        following = next(answers, httpx.ConnectError("refused"))
        if isinstance(following, httpx.ConnectError):
            raise following
        return (
            following if isinstance(following, httpx.Response) else httpx.Response(200, json=state)
        )

    client = _client(answer)

    assert client.wait("idx_1").status == "completed"
    with pytest.raises(ConnectionFailed):
        client.wait("idx_1", patience_seconds=0)
