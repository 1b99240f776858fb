"""Bodies are read without keeping the event loop from other requests."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic_core import from_json

from imagedex.api.bodies import JsonRequest
from imagedex.api.body_shape import BodyShape


def test_other_work_goes_on_between_large_bodies(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []

    def parse(content: bytes, **options: Any) -> Any:
        events.append("parsed")
        return from_json(content, **options)

    async def load(turns: asyncio.Lock) -> Any:
        content = b'["%s"]' % (b"x" * 600_000)

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": content}

        headers = [(b"content-type", b"application/json")]
        request = JsonRequest({"type": "http", "headers": headers}, receive)
        await request.load(BodyShape(max_entries=1, max_fields=0), turns)
        return await request.json()

    async def work() -> None:
        while True:
            events.append("worked")
            await asyncio.sleep(0)

    async def run() -> list[Any]:
        turns = asyncio.Lock()
        other = asyncio.create_task(work())
        documents = await asyncio.gather(*(load(turns) for _ in range(5)))
        other.cancel()
        return documents

    monkeypatch.setattr("imagedex.api.bodies.from_json", parse)
    assert asyncio.run(run()) == [["x" * 600_000]] * 5
    assert events.count("parsed") == 5
    assert "parsed parsed" not in " ".join(events)
