"""A deployment on this host: ``python3 -m deployment install|rollback|status``, as root.

The working directory is what ``deploy.sh`` has sent: this package, units, rules, options and, to
install, the wheel. The exit code is 0 when the server is ready, 1 when it is as it was before, and
3 when it is not ready.
"""

from __future__ import annotations

import argparse
import os
import secrets
import signal
import sys
import tomllib
from pathlib import Path

from deployment.database import HomeDatabase
from deployment.firewall import Firewall
from deployment.machine import (
    DeploymentFailed,
    ensure_directory,
    ensure_user,
    lines_of,
    locked,
    say,
    toml,
    write_file,
)
from deployment.service import UNIT, Service, write_storage
from deployment.versions import Versions

USER = "imagedex"
BASE = Path("/opt/imagedex")
HOME = Path("/var/lib/imagedex")
CONFIGURATION = Path("/etc/imagedex")
LOCK = Path("/run/imagedex-deployment.lock")  # Not in /run/lock, where everybody may write.

_KEPT_VERSIONS = 2  # Beside the current one.
_NOT_READY = 3


class Deployment:
    """The versions, database and service of this host, and how one version takes over."""

    def __init__(self, bundle: Path, ready_seconds: float) -> None:
        self._bundle = bundle
        self._options = bundle / "options"
        self._ready_seconds = ready_seconds
        self._config = CONFIGURATION / "imagedex.toml"
        self._versions = Versions(BASE, USER)
        self._service = Service(self._config)
        self._database = HomeDatabase(HOME, USER)

    def install(self) -> int:
        """Bring this host to the version that was sent; return the exit code."""
        self._prepare_host()
        is_service_new = self._configure()
        version = self._versions.prepare(
            self._bundle / "package", self._bundle / "wheels", self._bundle / "systemd" / UNIT
        )
        is_service_new |= not self._service.has_unit(self._versions.unit(version))
        before = self._versions.current()
        is_running = before == version and self._service.state()[0] == "active"
        if (
            is_running
            and not is_service_new
            and self._service.wait_until_ready(self._ready_seconds) is None
        ):
            self._settle(version)
            say(f"Version {version} is there already, and ready.")
            return 0
        return self._take_over(before, version)

    def roll_back(self, *, restore_database: bool) -> int:
        """Go back to the version before; return the exit code."""
        version = self._versions.current()
        if version is None:
            raise DeploymentFailed("No version is installed.")
        before = self._versions.previous(version)
        if before is None:
            raise DeploymentFailed(f"There is no version before {version} to go back to.")
        if restore_database and not self._database.is_kept_before(version):
            raise DeploymentFailed(f"There is no database from before version {version} here.")
        if not restore_database and self._database.has_changed_form_since(version):
            raise DeploymentFailed(
                f"The database has another form since version {version}, which {before} refuses. "
                "With --restore-database the one from before the upgrade comes back: keys and "
                "jobs made since are lost, and the catalog fills itself from the index."
            )
        self._service.stop()
        if restore_database:
            try:
                self._database.restore_before(version)
            except DeploymentFailed:
                self._service.start()
                raise
            say("The database is the one from before the upgrade.")
        reason = self._bring_up(before)
        if reason is not None:
            say(f"Version {before} is current but not ready: {reason}")
            return _NOT_READY
        self._versions.confirm(before)
        say(f"Version {before} is ready.")
        return 0

    def status(self) -> int:
        """Say which versions there are and whether the server runs; return the exit code."""
        current = self._versions.current()
        for version in self._versions.all():
            say(f"{version}{' (current)' if version == current else ''}")
        if current is None:
            say("No version is installed.")
            return _NOT_READY
        say(f"version before: {self._versions.previous(current) or 'none'}")
        reason = self._service.wait_until_ready(0)
        say("ready" if reason is None else f"not ready: {reason}")
        return 0 if reason is None else _NOT_READY

    def _prepare_host(self) -> None:
        ensure_user(USER, HOME)
        ensure_directory(BASE / "versions", 0o755)
        ensure_directory(HOME, 0o700, USER)
        ensure_directory(CONFIGURATION, 0o755)
        ensure_directory(CONFIGURATION / "credentials", 0o700)

    def _configure(self) -> bool:
        """Write what is not there; say whether the service must be started anew for it."""
        key = CONFIGURATION / "credentials" / "admin_key"
        if not key.exists():
            write_file(key, f"{secrets.token_urlsafe(32)}\n", 0o600)
            say(f"An admin key was made; it is in {key}.")
        roots = lines_of(self._options / "image-root")
        listen = lines_of(self._options / "listen")
        if not self._config.exists():
            if not all(root.startswith("/") for root in roots):
                raise DeploymentFailed(f"Each of {roots} must be an absolute path.")
            write_file(
                self._config,
                "# All settings: docs/settings.md. After a change: systemctl restart imagedex\n"
                f'home = "{HOME}"\n'
                f"image_roots = {toml(roots)}\n\n"
                "[server]\n"
                f"host = {toml(listen[-1] if listen else '127.0.0.1')}\n"
                "port = 8080\n",
                0o640,
                group=USER,
            )
        elif roots or listen:
            say(f"{self._config} is there already and stays as it is; change it there.")
        writable = lines_of(self._options / "writable")
        is_service_new = bool(writable) and write_storage(writable)
        firewall = Firewall(CONFIGURATION, self._bundle)
        internal = lines_of(self._options / "internal")
        cluster = lines_of(self._options / "cluster")
        if internal or cluster or firewall.is_set_up:
            ports = lines_of(self._options / "api-port")
            firewall.set_up(internal=internal, cluster=cluster, ports=ports)
        return is_service_new

    def _take_over(self, before: str | None, version: str) -> int:
        """Let a version run in place of another, or go back when it does not become ready."""
        self._service.stop()
        if before != version:
            try:
                if self._is_database_ours():
                    self._database.keep_before(version)
                self._versions.note_previous(version, before)
            except (DeploymentFailed, OSError):
                if before is not None:
                    self._service.start()
                raise
        elif not self._versions.is_confirmed(version):
            # An earlier deployment was cut off here, so this version has to prove itself still.
            before = self._versions.previous(version)
        else:
            before = None
        reason = self._bring_up(version)
        if reason is None:
            self._settle(version)
            say(f"Version {version} is ready.")
            return 0
        say(f"Version {version} does not become ready: {reason}")
        if before is None:
            say("There is no other version to go back to for that.")
            return _NOT_READY
        return self._go_back(version, before)

    def _go_back(self, version: str, before: str) -> int:
        try:
            self._service.stop()
            if self._database.has_changed_form_since(version):
                self._database.restore_before(version)
                say("The database is the one from before again.")
        except DeploymentFailed as error:
            say(f"Version {before} gets the database as it is: {error}")
        reason = self._bring_up(before)
        if reason is not None:
            say(f"Version {before} is current again but not ready either: {reason}")
            return _NOT_READY
        say(f"Version {before} runs again, and is ready.")
        return 1

    def _bring_up(self, version: str) -> str | None:
        """Make a version current and start it; return why it is not ready, or None when it is."""
        try:
            self._versions.make_current(version)
            self._service.install(self._versions.unit(version))
            self._service.start()
            return self._service.wait_until_ready(self._ready_seconds)
        except (DeploymentFailed, OSError) as error:
            return str(error)

    def _settle(self, version: str) -> None:
        self._versions.confirm(version)
        self._versions.forget_others(version, kept=_KEPT_VERSIONS)
        try:
            self._database.forget_others(self._versions.all())
        except DeploymentFailed as error:  # The version is ready all the same.
            say(f"Older copies of the database stay: {error}")

    def _is_database_ours(self) -> bool:
        settings = tomllib.loads(self._config.read_text("utf-8"))
        is_elsewhere = (
            (CONFIGURATION / "credentials" / "database_url").exists()
            or not settings.keys().isdisjoint({"database_url", "database_url_file"})
            or settings.get("home") != str(HOME)
        )
        if is_elsewhere:
            say(f"The database is not below {HOME}: keep a copy of it yourself before upgrades.")
        return not is_elsewhere


def main() -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="deployment", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("command", choices=("install", "rollback", "status"))
    parser.add_argument("--ready-seconds", type=float, default=180.0)
    parser.add_argument("--restore-database", action="store_true")
    given = parser.parse_args()
    # The operator's connection may break; what was begun is brought to its end.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    os.umask(0o022)
    deployment = Deployment(Path.cwd(), given.ready_seconds)
    try:
        if given.command == "status":
            return deployment.status()
        with locked(LOCK):
            if given.command == "rollback":
                return deployment.roll_back(restore_database=given.restore_database)
            return deployment.install()
    except (DeploymentFailed, OSError, tomllib.TOMLDecodeError) as error:
        say(f"Error: {error}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
