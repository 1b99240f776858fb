"""The service: its unit, its start, and whether it is ready."""

from __future__ import annotations

import contextlib
import time
import tomllib
import urllib.error
import urllib.request
from pathlib import Path

from deployment.machine import DeploymentFailed, run, say, write_file

UNIT = "imagedex.service"
UNITS = Path("/etc/systemd/system")

_MAX_RESTARTS = 3  # A version that has crashed so often will not become ready.
_POLL_SECONDS = 0.2
_ANSWER_SECONDS = 15.0
# No proxy of the environment (http_proxy) comes between this and a server on the same machine.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Service:
    """The server under systemd, with the settings of ``config``."""

    def __init__(self, config: Path) -> None:
        self._config = config

    def install(self, unit: Path) -> None:
        """Let systemd know the unit, and start it when the machine starts."""
        write_file(UNITS / UNIT, unit.read_text("utf-8"))
        run("systemctl", "daemon-reload")
        run("systemctl", "--quiet", "enable", UNIT)

    def has_unit(self, unit: Path) -> bool:
        """Say whether systemd has this unit already."""
        installed = UNITS / UNIT
        return installed.is_file() and installed.read_bytes() == unit.read_bytes()

    def stop(self) -> None:
        """Stop the server, in good order."""
        if (UNITS / UNIT).exists():
            run("systemctl", "stop", UNIT)

    def start(self) -> None:
        """Start the server, without waiting for it."""
        with contextlib.suppress(DeploymentFailed):  # There may be no failure to forget.
            run("systemctl", "reset-failed", UNIT)
        run("systemctl", "start", "--no-block", UNIT)

    def state(self) -> tuple[str, int]:
        """Return systemd's word for the state, and how often it has restarted the server."""
        told = run("systemctl", "show", UNIT, "--property=ActiveState", "--property=NRestarts")
        fields = dict(line.partition("=")[::2] for line in told.splitlines())
        return fields.get("ActiveState", "unknown"), int(fields.get("NRestarts") or 0)

    def wait_until_ready(self, seconds: float) -> str | None:
        """Wait until the server can answer queries; return why it cannot, or None when it can."""
        deadline = time.monotonic() + seconds
        while True:
            state, restarts = self.state()
            reason = f"systemd says {state!r}"
            if state == "active":
                refusal = self._refusal()
                if refusal is None:
                    return None
                reason = refusal
            if state == "failed" or restarts >= _MAX_RESTARTS:
                return f"{reason} after {restarts} restarts{self._last_lines()}"
            if time.monotonic() > deadline:
                return f"{reason} after {seconds:g} s{self._last_lines()}"
            time.sleep(_POLL_SECONDS)

    def _refusal(self) -> str | None:
        url = f"http://{self._address()}/health/ready"
        try:
            with _DIRECT.open(url, timeout=_ANSWER_SECONDS):
                return None
        except urllib.error.HTTPError as error:
            return f"{url} answers {error.code}: {error.read(2000).decode(errors='replace')}"
        except OSError as error:
            return f"{url} does not answer: {error}"

    def _address(self) -> str:
        try:
            server = tomllib.loads(self._config.read_text("utf-8")).get("server", {})
        except tomllib.TOMLDecodeError as error:
            raise DeploymentFailed(f"{self._config} is not TOML: {error}") from error
        host = server.get("host", "127.0.0.1")
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        return f"{f'[{host}]' if ':' in host else host}:{server.get('port', 8080)}"

    def _last_lines(self) -> str:
        try:
            lines = run("journalctl", "--no-pager", "--output=cat", "--lines=15", f"--unit={UNIT}")
        except DeploymentFailed as error:
            return f" (its log cannot be read: {error})"
        return "".join(f"\n    {line}" for line in lines.splitlines())


def write_storage(directories: list[str]) -> bool:
    """Let the server write these directories too; say whether that changed anything."""
    for directory in directories:
        if not directory.startswith("/") or any(letter in directory for letter in '"\\%'):
            raise DeploymentFailed(f"{directory!r} cannot be used as a directory to write.")
        if not Path(directory).is_dir():  # systemd would not start the service.
            raise DeploymentFailed(f"There is no directory {directory!r} to write.")
    drop_ins = UNITS / f"{UNIT}.d"
    drop_ins.mkdir(exist_ok=True)
    lines = [f'ReadWritePaths="{directory}"' for directory in directories]
    text = "\n".join(["# By deploy.sh --writable.", "[Service]", *lines, ""])
    if is_changed := write_file(drop_ins / "storage.conf", text):
        say(f"The server may write {', '.join(directories)}.")
    return is_changed
