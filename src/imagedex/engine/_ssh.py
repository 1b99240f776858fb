"""SSH, by asyncssh: the only module that knows it.

Keys of hosts must be in a known_hosts file: nothing is learnt, and nothing of the user's SSH
configuration is read. Only keys that are named, or the usual ones, are offered; no agent is asked.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh

from imagedex.core.errors import HostRefused, HostUnreachable, SettingsError
from imagedex.engine.hosts import HostSpec

_KEPT_COMPLAINTS = 4096
_READ_BYTES = 1 << 16
_DEFAULT_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")


@dataclass(frozen=True, slots=True)
class SshSettings:
    """How hosts are reached."""

    known_hosts: Path
    keys: tuple[Path, ...] = ()  # Private keys; without any, the usual ones of the user.
    connect_seconds: float = 5.0  # To connect, and again to log in.


class SshConnection:
    """A connection to a host. Everything is called on one event loop."""

    def __init__(self, connection: asyncssh.SSHClientConnection, spec: HostSpec) -> None:
        self._connection = connection
        self._spec = spec

    @classmethod
    async def open(cls, spec: HostSpec, settings: SshSettings) -> SshConnection:
        """Connect and log in.

        Raises HostUnreachable when that may work later; HostRefused when the host shows a key that
        is not known, or takes none of ours; SettingsError for files that cannot be used.
        """
        keys = _keys(settings)
        if not settings.known_hosts.is_file():
            raise SettingsError(
                f"There is no {str(settings.known_hosts)!r} with the keys of hosts; write it with "
                f"`{_keyscan(spec)}` after comparing the keys, or correct "
                "IMAGEDEX_ENGINE__SSH_KNOWN_HOSTS."
            )
        client = _Client()
        options: dict[str, Any] = {} if spec.user is None else {"username": spec.user}
        try:
            connection = await asyncssh.connect(
                spec.address,
                spec.port,
                client_factory=lambda: client,
                known_hosts=str(settings.known_hosts),
                config=None,
                client_keys=[str(key) for key in keys],
                agent_path=None,
                password_auth=False,
                kbdint_auth=False,
                host_based_auth=False,
                gss_host=None,
                x509_trusted_certs=None,
                connect_timeout=settings.connect_seconds,
                login_timeout=settings.connect_seconds,
                **options,
            )
        except asyncssh.HostKeyNotVerifiable as error:
            raise HostRefused(_unknown_key(spec, settings, client, error)) from error
        except asyncssh.PermissionDenied as error:
            user = "the server's user" if spec.user is None else repr(spec.user)
            raise HostRefused(
                f"Host {spec.name} ({spec.address}) lets {user} in by none of the keys "
                f"{', '.join(str(key) for key in keys)}; add a public one to "
                "~/.ssh/authorized_keys there, or name another by IMAGEDEX_ENGINE__SSH_KEYS."
            ) from error
        except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
            raise SettingsError(
                f"An SSH key cannot be used: {error}; IMAGEDEX_ENGINE__SSH_KEYS needs private keys "
                "without a passphrase."
            ) from error
        except (OSError, asyncssh.Error) as error:
            raise _unreachable(spec, error) from error
        return cls(connection, spec)

    @property
    def own_address(self) -> str:
        """The address of this machine by which the host knows it, as long as no router lies."""
        return str(self._connection.get_extra_info("sockname")[0])

    async def start(self, argv: Sequence[str]) -> SshProcess:
        """Start a command; its words reach it as they are. Raises HostUnreachable, HostRefused."""
        command = "exec " + " ".join(shlex.quote(word) for word in argv)
        try:
            process = await self._connection.create_process(command, encoding=None)
        except asyncssh.ChannelOpenError as error:
            raise HostRefused(
                f"Host {self._spec.name} ({self._spec.address}) starts no commands: {error}; check "
                "its sshd."
            ) from error
        except (OSError, asyncssh.Error) as error:
            raise _unreachable(self._spec, error) from error
        return SshProcess(process, self._spec)

    def abort(self) -> None:
        """End the connection at once, telling nobody."""
        self._connection.abort()


class SshProcess:
    """A command that runs on a host, with bytes in and out."""

    def __init__(self, process: asyncssh.SSHClientProcess[bytes], spec: HostSpec) -> None:
        self._process = process
        self._spec = spec
        self._complaints = b""
        # What is not read would stop the command some day.
        self._draining = asyncio.create_task(self._drain())

    def write(self, data: bytes) -> None:
        """Send to its standard input; never waits."""
        # On a connection that is gone; whoever reads the output hears of it.
        with suppress(OSError):
            self._process.stdin.write(data)

    async def output(self) -> AsyncIterator[bytes]:
        """Yield its output in pieces, until it ends. Raises HostUnreachable."""
        try:
            while data := await self._process.stdout.read(_READ_BYTES):
                yield data
        except (OSError, asyncssh.Error) as error:
            raise _unreachable(self._spec, error) from error

    def complaints(self) -> str:
        """Return the last that it wrote to standard error."""
        return self._complaints.decode(errors="replace").strip()

    async def wait(self) -> str:
        """Wait until it has ended, and say how."""
        await self._draining
        await self._process.wait_closed()
        if (signal := self._process.exit_signal) is not None:
            return f"was ended by signal {signal[0]}"
        return f"ended with status {self._process.exit_status}"

    async def _drain(self) -> None:
        try:
            while data := await self._process.stderr.read(_READ_BYTES):
                self._complaints = (self._complaints + data)[-_KEPT_COMPLAINTS:]
        except (OSError, asyncssh.Error):
            return  # Whoever reads the output hears of it.


class _Client(asyncssh.SSHClient):
    """Remembers the key of a host that is not known, to tell of it."""

    def __init__(self) -> None:
        self.offered: asyncssh.SSHKey | None = None

    # asyncssh asks when known_hosts does not have the key; the names are its own.
    def validate_host_public_key(
        self,
        host: str,  # noqa: ARG002
        addr: str,  # noqa: ARG002
        port: int,  # noqa: ARG002
        key: asyncssh.SSHKey,
    ) -> bool:
        self.offered = key
        return False


def _keys(settings: SshSettings) -> tuple[Path, ...]:
    keys = settings.keys or tuple(
        path for name in _DEFAULT_KEYS if (path := Path.home() / ".ssh" / name).is_file()
    )
    if not keys:
        raise SettingsError(
            "There is no SSH key to reach hosts with; make one (ssh-keygen -t ed25519 -N '') and "
            "name it by IMAGEDEX_ENGINE__SSH_KEYS."
        )
    for key in keys:
        if not key.is_file():
            raise SettingsError(
                f"There is no SSH key {str(key)!r}; correct IMAGEDEX_ENGINE__SSH_KEYS."
            )
    return keys


def _unknown_key(spec: HostSpec, settings: SshSettings, client: _Client, error: Exception) -> str:
    told = f"Host {spec.name} ({spec.address}, port {spec.port})"
    if client.offered is None:
        return f"{told} cannot prove who it is: {error}."
    return (
        f"{told} shows the key {client.offered.get_fingerprint()} "
        f"({client.offered.get_algorithm()}), which is not in {str(settings.known_hosts)!r}. If "
        f"that is its key, add the line that `{_keyscan(spec)}` prints; if another one stands "
        "there for it, somebody may be between."
    )


def _keyscan(spec: HostSpec) -> str:
    return f"ssh-keyscan -p {spec.port} {spec.address}"


def _unreachable(spec: HostSpec, error: Exception) -> HostUnreachable:
    reason = str(error) or type(error).__name__
    return HostUnreachable(
        f"Host {spec.name} ({spec.address}, port {spec.port}) cannot be reached: {reason}; it is "
        "tried again."
    )
