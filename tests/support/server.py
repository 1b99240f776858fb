"""A real ``imagedex serve`` process."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from support.program import RunningProgram, start_program

ADMIN_KEY = "test-admin-key-0123456789"

START_SECONDS = 60.0


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class ServerProcess:
    """One server on loopback; it can be killed and started again on the same home and port."""

    def __init__(
        self, home: Path, image_roots: Sequence[Path], environment: dict[str, str] | None = None
    ) -> None:
        self.home = home
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = home.parent / f"{home.name}.log"
        self._environment = {
            **{name: value for name, value in os.environ.items() if "IMAGEDEX" not in name},
            "IMAGEDEX_HOME": str(home),
            "IMAGEDEX_IMAGE_ROOTS": os.pathsep.join(map(str, image_roots)),
            "IMAGEDEX_ADMIN_KEY": ADMIN_KEY,
            "IMAGEDEX_SERVER__PORT": str(self.port),
            **(environment or {}),
        }
        self._process: RunningProgram | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The server's process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def launch(self) -> None:
        """Start the process, without waiting for it."""
        with self.log.open("ab") as log:
            self._process = start_program(["serve"], self._environment, output=log)

    def wait_until_ready(self) -> float:
        """Wait for ``/health/ready``; return the seconds that passed in this call."""
        started = time.monotonic()
        while time.monotonic() - started < START_SECONDS:
            assert self._process is not None
            if self._process.poll() is not None:
                break
            try:
                answer = httpx.get(f"{self.url}/health/ready", timeout=10)
            except httpx.TransportError:
                time.sleep(0.02)
                continue
            if answer.status_code == 200:
                return time.monotonic() - started
            time.sleep(0.02)
        raise AssertionError(f"The server did not become ready:\n{self.log.read_text()[-4000:]}")

    def start(self) -> None:
        """Start the process and wait until it is ready."""
        self.launch()
        self.wait_until_ready()

    def kill(self) -> None:
        """End the process as a power cut would (``kill -9``), and reap it."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def stop(self) -> int | None:
        """End the process as an operator would; return its exit code."""
        if self._process is None:
            return None
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError("The server did not stop within 30 s of SIGTERM.") from None
        self._process = None
        return code

    def client(self, *, timeout: float = 30.0) -> httpx.Client:
        """Return an HTTP client that holds the admin key."""
        return httpx.Client(
            base_url=self.url, headers={"X-API-Key": ADMIN_KEY}, timeout=timeout, trust_env=False
        )


def wait_for_job(
    client: httpx.Client, job_id: str, *, seconds: float = 300.0, pause_seconds: float = 0.02
) -> dict[str, object]:
    """Poll a job until it has ended; return its last status."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        answer = client.get(f"/api/v1/index/status/{job_id}")
        answer.raise_for_status()
        status: dict[str, object] = answer.json()
        if status["status"] in ("completed", "failed", "cancelled"):
            return status
        time.sleep(pause_seconds)
    raise AssertionError(f"The job {job_id} did not end within {seconds} s.")
