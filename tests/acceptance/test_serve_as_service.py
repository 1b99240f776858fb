"""The server as a service manager sees it: messages, credentials, exit codes, signals."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import pytest
from PIL import Image

from support.commands import Commands
from support.server import ADMIN_KEY, wait_for_job
from support.waiting import wait_until

DEADLINE_SECONDS = 60.0
TESTS = Path(__file__).resolve().parents[1]

# As ProtectSystem=strict of the unit and read_only of the compose file leave the files.
_READ_ONLY = """
set -eu
folder=$1
shift
for name in home temporary; do
    mkdir -p "$folder/$name"
    mount --bind "$folder/$name" "$folder/$name"
done
cut -d ' ' -f 2 /proc/self/mounts | while read -r place; do
    case $place in
    /proc* | /sys* | /dev* | "$folder"/*) ;;
    *) mount -o remount,bind,ro "$place" 2>/dev/null || : ;;
    esac
done
if touch "$folder/written" 2>/dev/null; then
    echo "The root can be written."
    exit 9
fi
exec setpriv --no-new-privs --bounding-set=-all --inh-caps=-all "$@"
"""


class Service:
    """A server with a socket to tell, as systemd starts one with ``Type=notify``."""

    def __init__(
        self,
        folder: Path,
        *,
        module: str = "imagedex.cli",
        wrapper: Sequence[str] = (),
        **environment: str,
    ) -> None:
        self._notifications = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notifications.bind(str(folder / "notify"))
        self.told: list[str] = []
        self.log = folder / "log"
        inherited = {name: value for name, value in os.environ.items() if "IMAGEDEX" not in name}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*wrapper, sys.executable, "-m", module, "serve", "--port", "0"],
                env={
                    **inherited,
                    "PYTHONPATH": str(TESTS),
                    "IMAGEDEX_HOME": str(folder / "home"),
                    "NOTIFY_SOCKET": str(folder / "notify"),
                    **environment,
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._listening = threading.Thread(target=self._listen)
        self._listening.start()

    def _listen(self) -> None:
        self._notifications.settimeout(0.05)
        while self.process.poll() is None:
            try:
                self.told.append(self._notifications.recv(4096).decode())
            except TimeoutError:
                continue

    @property
    def is_ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        return any(message.startswith("READY=1") for message in self.told)

    @property
    def url(self) -> str:
        (ready,) = [message for message in self.told if message.startswith("READY=1")]
        return ready.rpartition(" ")[2]

    def events(self, name: str) -> list[dict[str, object]]:
        lines = self.log.read_text().splitlines()
        logged = [json.loads(line) for line in lines if line.startswith("{")]
        return [event for event in logged if event["event"] == name]

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        code = self.process.wait(DEADLINE_SECONDS)
        self.close()
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._listening.join()
        self._notifications.close()


@pytest.fixture
def services() -> Iterator[list[Service]]:
    started: list[Service] = []
    yield started
    for service in started:
        service.close()


def test_a_server_says_that_it_is_ready_lives_and_stops(
    tmp_path: Path, services: list[Service]
) -> None:
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "imagedex_admin_key").write_text("the-key-of-the-credentials\n")
    service = Service(
        tmp_path, CREDENTIALS_DIRECTORY=str(credentials), WATCHDOG_USEC=str(4 * 10**6)
    )
    services.append(service)

    wait_until(lambda: service.is_ready)
    answer = httpx.get(
        f"{service.url}/api/v1/keys",
        headers={"X-API-Key": "the-key-of-the-credentials"},
        trust_env=False,
    )
    assert answer.status_code == 200
    wait_until(lambda: "WATCHDOG=1" in service.told)

    assert service.end(signal.SIGTERM) == 0
    assert service.told[-1] == "STOPPING=1"
    assert "imgdx_" not in service.log.read_text()  # No first key was made.
    assert "the-key-of-the-credentials" not in service.log.read_text()


def test_a_server_whose_event_loop_is_blocked_does_not_feed_the_watchdog(
    tmp_path: Path, services: list[Service]
) -> None:
    service = Service(tmp_path, module="support.blockable_server", WATCHDOG_USEC=str(10**6))
    services.append(service)
    wait_until(lambda: service.is_ready)
    wait_until(lambda: "WATCHDOG=1" in service.told)
    release = tmp_path / "release"

    def block() -> None:
        httpx.get(
            f"{service.url}/block", params={"until": str(release)}, trust_env=False, timeout=None
        )

    blocked = threading.Thread(target=block)
    blocked.start()
    try:
        wait_until(
            lambda: any(
                "api-loop" in str(event["stalled"]) for event in service.events("watchdog_not_told")
            )
        )
        before = len(service.told)
        time.sleep(1.0)  # The whole limit: systemd would have ended it.
        assert service.told[before:] == []
    finally:
        release.touch()
        blocked.join()
    wait_until(lambda: "WATCHDOG=1" in service.told[before:])

    # What systemd sends a process that does not feed its watchdog.
    assert service.end(signal.SIGABRT) == -signal.SIGABRT
    log = service.log.read_text()
    assert "Fatal Python error: Aborted" in log
    assert "runner.py" in log  # The stacks of all threads.


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("IMAGEDEX_MODEL", "no-such-model"),
        ("IMAGEDEX_ADMIN_KEY_FILE", "/nowhere/key"),
    ],
)
def test_settings_that_cannot_be_used_end_it_with_a_code_of_their_own(
    tmp_path: Path, variable: str, value: str
) -> None:
    commands = Commands.local(tmp_path / "home", **{variable: value})
    done = commands.run("serve", "--port", "0", code=78)
    assert "Error: " in done.stderr


def test_a_server_needs_to_write_nothing_but_its_home_and_temporary_files(
    tmp_path: Path, services: list[Service]
) -> None:
    if os.geteuid() != 0:
        pytest.skip("Only root can mount a root that cannot be written.")
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (64, 64), "red").save(tmp_path / "photos" / "red.png")
    service = Service(
        tmp_path,
        wrapper=["unshare", "--mount", "sh", "-c", _READ_ONLY, "sh", str(tmp_path)],
        IMAGEDEX_IMAGE_ROOTS=str(tmp_path / "photos"),
        IMAGEDEX_ADMIN_KEY=ADMIN_KEY,
        IMAGEDEX_INDEXING__SETTLE_SECONDS="0",
        TMPDIR=str(tmp_path / "temporary"),
    )
    services.append(service)
    wait_until(lambda: service.is_ready)
    with httpx.Client(
        base_url=service.url, headers={"X-API-Key": ADMIN_KEY}, timeout=60, trust_env=False
    ) as client:
        asked = client.post(
            "/api/v1/index/trigger", json={"image_dir": str(tmp_path / "photos")}
        ).raise_for_status()
        assert wait_for_job(client, asked.json()["job_id"])["status"] == "completed"
        found = client.post("/api/v1/query", json={"text": "red"}).raise_for_status().json()
        assert [result["image_path"] for result in found["results"]] == [
            str(tmp_path / "photos" / "red.png")
        ]
    assert service.end(signal.SIGTERM) == 0
