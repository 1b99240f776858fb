"""The server as a command."""

from __future__ import annotations

import json
import re
import signal
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.commands import Commands

DEADLINE_SECONDS = 60.0


class Serving:
    """A server whose stderr is read line by line up to its address."""

    def __init__(
        self, home: Path, *arguments: str, is_fresh: bool = False, **settings: str
    ) -> None:
        commands = Commands.local(home, **settings)
        if is_fresh:
            commands = commands.fresh()
        self.process = commands.start("serve", "--port", "0", *arguments)
        self.lines: list[str] = []
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip("\n"))
            if '"listening"' in line:
                break
        self.url: str = self.event("listening")["url"]

    def event(self, name: str) -> dict[str, Any]:
        """Return the first log line of this event."""
        for line in self.lines:
            if line.startswith("{") and json.loads(line)["event"] == name:
                event: dict[str, Any] = json.loads(line)
                return event
        raise AssertionError(f"The server told nothing of {name!r}: {self.lines}")

    def stop(self, number: signal.Signals) -> int:
        """Send a signal; return the exit code, having kept the last lines."""
        self.process.send_signal(number)
        _, told = self.process.communicate(timeout=DEADLINE_SECONDS)
        self.lines += told.splitlines()
        return self.process.returncode


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_start_prints_an_admin_key_once_and_signals_end_it_well(
    tmp_path: Path, number: signal.Signals
) -> None:
    first = Serving(tmp_path / "home", is_fresh=True)
    (secret,) = re.findall(r"imgdx_\S+", "\n".join(first.lines))
    answer = httpx.get(f"{first.url}/api/v1/keys", headers={"X-API-Key": secret}, trust_env=False)
    assert answer.status_code == 200
    assert first.stop(number) == 0
    assert "Traceback" not in "\n".join(first.lines)

    second = Serving(tmp_path / "home")
    assert "imgdx_" not in "\n".join(second.lines)
    assert second.stop(number) == 0


def test_log_lines_are_json_when_nobody_watches(tmp_path: Path) -> None:
    serving = Serving(
        tmp_path / "home", is_fresh=True, IMAGEDEX_ADMIN_KEY="an-admin-key-of-the-settings"
    )
    httpx.get(f"{serving.url}/health", trust_env=False)
    assert serving.stop(signal.SIGTERM) == 0

    events = [json.loads(line) for line in serving.lines]
    assert all({"event", "level", "timestamp"} <= event.keys() for event in events)
    assert "an-admin-key-of-the-settings" not in "\n".join(serving.lines)
    assert "/health" in {event.get("route") for event in events}


def test_listening_beyond_this_machine_is_warned_of(tmp_path: Path) -> None:
    serving = Serving(tmp_path / "home", "--host", "0.0.0.0")
    assert serving.stop(signal.SIGTERM) == 0

    assert serving.event("listening_without_tls")["level"] == "warning"


def test_a_port_that_is_taken_is_told_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        error = Commands.local(tmp_path / "home").fail("serve", "--port", str(port))

    assert f"127.0.0.1:{port}" in error
    assert "--port" in error


def test_an_address_that_is_not_this_machine_s_is_told(tmp_path: Path) -> None:
    error = Commands.local(tmp_path / "home").fail("serve", "--host", "203.0.113.1", "--port", "0")

    assert "203.0.113.1" in error


def test_a_settings_file_can_name_the_port(tmp_path: Path) -> None:
    config = tmp_path / "imagedex.toml"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config.write_text(f"[server]\nport = {port}\n")
        error = Commands.local(tmp_path / "home").fail("--config", config, "serve")

    assert f"127.0.0.1:{port}" in error
