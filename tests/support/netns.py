"""Several hosts on one machine: network namespaces on a bridge, with a real sshd in each.

This process is the controller; it has the bridge's own address. Needs root, ``ip`` and ``sshd``.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

NETWORK = "10.213.0.0/16"
"""All hosts lie in it; tests that are marked ``hosts`` may connect there."""

_TESTS = Path(__file__).resolve().parents[1]
_MOST_LANS = 200
_START_SECONDS = 20.0
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def why_not() -> str | None:
    """Return what is missing to have hosts here; None for nothing."""
    if os.geteuid() == 0 and _find("sshd") and _find("ip"):
        probe = f"imxp{os.getpid()}"
        try:
            # A container's root may lack the right to.
            _run("ip", "link", "add", probe, "type", "bridge")
            _run("ip", "link", "del", probe)
        except OSError:
            pass
        else:
            return None
    return "needs root, sshd and ip: several hosts are network namespaces"


class Lan:
    """A bridge and the keys by which its hosts know the controller. Closed with ``close``."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._resources = ExitStack()
        self._hosts = 0
        # Other runs of the tests may be here too: who makes the bridge has the number.
        for number in range(1, _MOST_LANS):
            added = subprocess.run(
                [_need("ip"), "link", "add", f"imx{number}", "type", "bridge"],
                check=False,
                capture_output=True,
            )
            if added.returncode == 0:
                break
        else:
            raise OSError("no bridge could be made: " + added.stderr.decode())
        self._number = number
        self._resources.callback(_run, "ip", "link", "del", f"imx{number}")
        self.address = f"10.213.{number}.1"
        _run("ip", "addr", "add", f"{self.address}/24", "dev", f"imx{number}")
        _run("ip", "link", "set", f"imx{number}", "up")
        self.key = directory / "controller_key"
        self._public_key = _make_key(self.key)
        self.known_hosts = directory / "known_hosts"
        self.known_hosts.touch()

    @contextmanager
    def host(
        self, name: str, *, mounts: Mapping[str, Path | None] | None = None
    ) -> Iterator[NetHost]:
        """Have a host whose sshd answers when this returns.

        ``mounts`` says what lies on directories there: another directory, or nothing (None).
        """
        self._hosts += 1
        last = self._hosts + 1
        with ExitStack() as resources:
            host = NetHost(
                name=name,
                address=f"10.213.{self._number}.{last}",
                namespace=f"imx{self._number}-{last}",
                link=f"imx{self._number}v{last}",
                directory=self._directory / name,
            )
            host.directory.mkdir()
            self._wire(host, resources)
            host_key = _make_key(host.directory / "host_key")
            with open(self.known_hosts, "a") as known:
                known.write(f"{host.address} {host_key}\n")
            (host.directory / "authorized_keys").write_text(f"{self._public_key}\n")
            sshd = _start_sshd(host, mounts or {})
            host.sshd_pid = sshd.pid
            resources.callback(_end, host, sshd)
            _wait_for_sshd(host, sshd)
            yield host

    def close(self) -> None:
        """Take the bridge away; hosts are gone by then."""
        self._resources.close()

    def _wire(self, host: NetHost, resources: ExitStack) -> None:
        _run("ip", "netns", "add", host.namespace)
        resources.callback(_run, "ip", "netns", "del", host.namespace)
        inside = f"{host.link}i"
        _run("ip", "link", "add", host.link, "type", "veth", "peer", "name", inside)
        _run("ip", "link", "set", inside, "netns", host.namespace)
        _run("ip", "link", "set", host.link, "master", f"imx{self._number}", "up")
        for command in (
            ("addr", "add", f"{host.address}/24", "dev", inside),
            ("link", "set", inside, "up"),
            ("link", "set", "lo", "up"),
        ):
            _run("ip", "-n", host.namespace, *command)


@dataclass
class NetHost:
    """A network namespace with its own mounts and an sshd."""

    name: str
    address: str
    namespace: str
    link: str  # The controller's end of its cable.
    directory: Path  # Of its files: keys, the state of agents, its sshd's log.
    sshd_pid: int = 0

    @property
    def state(self) -> Path:
        """Where its agents keep their logs."""
        return self.directory / "state"

    def cut(self) -> None:
        """Pull the cable: nothing passes, and nobody is told."""
        _run("ip", "link", "set", self.link, "down")

    def mend(self) -> None:
        """Put the cable back."""
        _run("ip", "link", "set", self.link, "up")

    def pids(self) -> list[int]:
        """Return the processes that run there."""
        found = subprocess.run(
            [_need("ip"), "netns", "pids", self.namespace],
            check=True,
            capture_output=True,
            text=True,
        )
        return [int(pid) for pid in found.stdout.split()]

    def running(self, module: str) -> list[int]:
        """Return the processes there that run a module as their main one."""
        return [pid for pid in self.pids() if f"\0-m\0{module}\0" in _command_line(pid)]

    def run(self, *command: str) -> None:
        """Run a command there, with the host's own view of the file system."""
        enter = [_need("nsenter"), "-t", str(self.sshd_pid), "-m", "-n"]
        subprocess.run([*enter, *command], check=True, capture_output=True)


def _start_sshd(host: NetHost, mounts: Mapping[str, Path | None]) -> subprocess.Popen[bytes]:
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # It does not start without.
    host.state.mkdir()
    config = host.directory / "sshd_config"
    config.write_text(
        f"""
ListenAddress {host.address}
HostKey {host.directory / "host_key"}
AuthorizedKeysFile {host.directory / "authorized_keys"}
StrictModes no
UsePAM no
PidFile none
PermitRootLogin prohibit-password
PasswordAuthentication no
SetEnv XDG_STATE_HOME={host.state} PYTHONPATH={_TESTS}
"""
    )
    script = "".join(
        f"mount --bind '{source}' '{target}' && "
        if source is not None
        else f"mount -t tmpfs none '{target}' && "
        for target, source in mounts.items()
    )
    with open(host.directory / "sshd.log", "wb") as log:
        return subprocess.Popen(
            [
                *(_need("ip"), "netns", "exec", host.namespace),
                *(_need("unshare"), "-m", "--propagation", "private"),
                *("sh", "-c", f"{script} exec {_need('sshd')} -D -e -f '{config}'"),
            ],
            stdout=log,
            stderr=log,
            env={"PATH": _SYSTEM_PATH},
        )


def _wait_for_sshd(host: NetHost, sshd: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    log = host.directory / "sshd.log"
    while b"Server listening" not in log.read_bytes():
        if sshd.poll() is not None or time.monotonic() > deadline:
            raise OSError(f"sshd of {host.name} does not start: {log.read_text()}")
        time.sleep(0.02)


def _end(host: NetHost, sshd: subprocess.Popen[bytes]) -> None:
    """End all that runs on a host, and nothing else."""
    sshd.kill()
    deadline = time.monotonic() + _START_SECONDS
    while pids := host.pids():
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if time.monotonic() > deadline:
            raise OSError(f"processes {pids} of {host.name} do not end")
        time.sleep(0.02)
    sshd.wait()


def _make_key(path: Path) -> str:
    """Write a private key as OpenSSH has it, and return the line of the public one."""
    key = ed25519.Ed25519PrivateKey.generate()
    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.NoEncryption(),
        )
    )
    return (
        key.public_key()
        .public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        .decode()
    )


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _find(tool: str) -> str | None:
    return shutil.which(tool, path=_SYSTEM_PATH)


def _need(tool: str) -> str:
    found = _find(tool)
    if found is None:
        raise OSError(f"{tool} is not installed")
    return found


def _run(*command: str) -> None:
    done = subprocess.run([_need(command[0]), *command[1:]], check=False, capture_output=True)
    if done.returncode != 0:
        raise OSError(f"{' '.join(command)}: {done.stderr.decode()}")


PYTHON = sys.executable
"""What runs agents and workers on all hosts: they share the environment of the tests."""
