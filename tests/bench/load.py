"""Load on a server from clients that cost little themselves: raw HTTP/1.1 on kept connections."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from support.server import ADMIN_KEY

WORDS = (
    "dog cat bird horse boat train car tree flower mountain river beach city street night sun snow "
    "rain child woman man family party food bread fruit apple coffee table chair window door house "
    "bridge road field garden park forest lake sky cloud fire book clock shoe hat dress guitar"
).split()


@dataclass(frozen=True)
class Latencies:
    """Seconds of each request, and how many were not answered with 200."""

    seconds: tuple[float, ...]
    failed: int

    def milliseconds(self, percentile: float) -> float:
        """Return a percentile, in milliseconds."""
        return float(np.percentile(np.array(self.seconds), percentile)) * 1000


def new_query(chance: random.Random) -> bytes:
    """Return a query request whose text was, in all likelihood, never asked before."""
    text = " ".join(chance.sample(WORDS, 5)) + f" {chance.randrange(10**6)}"
    return post_request("/api/v1/query", {"text": text, "top_k": 10})


def six_words(chance: random.Random) -> bytes:
    """Return a query of six words that was, in all likelihood, never asked before."""
    text = " ".join(chance.sample(WORDS, 6))
    return post_request("/api/v1/query", {"text": text, "top_k": 10})


def post_request(path: str, body: object) -> bytes:
    """Return the bytes of a POST."""
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: bench\r\nX-API-Key: {ADMIN_KEY}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


def get_request(path: str) -> bytes:
    """Return the bytes of a GET."""
    return f"GET {path} HTTP/1.1\r\nHost: bench\r\nX-API-Key: {ADMIN_KEY}\r\n\r\n".encode()


def measure(
    port: int,
    requests: Sequence[Callable[[], bytes]],
    *,
    until: Callable[[], bool],
    pause_seconds: float = 0.0,
) -> Latencies:
    """Run one client for each item of ``requests``, each on a connection of its own.

    A client sends its next request when it has the answer and ``pause_seconds`` have passed,
    until ``until()`` says that it is enough.
    """
    seconds: list[float] = []
    failed = 0

    async def client(make_request: Callable[[], bytes]) -> None:
        nonlocal failed
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            while not until():
                request = make_request()
                started = time.perf_counter()
                writer.write(request)
                status = await _read_answer(reader)
                seconds.append(time.perf_counter() - started)
                failed += status != 200
                await asyncio.sleep(pause_seconds)
        finally:
            writer.close()

    async def run() -> None:
        await asyncio.gather(*(client(make_request) for make_request in requests))

    asyncio.run(run())
    return Latencies(tuple(seconds), failed)


async def _read_answer(reader: asyncio.StreamReader) -> int:
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.decode("latin-1").lower().split("\r\n")
    length = next(int(line.split(":")[1]) for line in lines if line.startswith("content-length:"))
    await reader.readexactly(length)
    return int(lines[0].split()[1])
