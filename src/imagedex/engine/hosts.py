"""Machines on which workers run, as an operator names them and as the engine finds them."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from imagedex.core.paths import PathMapping
from imagedex.engine.interfaces import WorkerInfo

DEFAULT_PYTHON = "/opt/imagedex/current/bin/python"
"""Where ``deploy/deploy.sh`` installs it."""

LOCAL_NAME = "local"
"""Whose workers the controller's own machine runs; no host can have this name."""


@dataclass(frozen=True, slots=True)
class HostSpec:
    """A machine that runs workers, reached over SSH."""

    name: str  # Unique; letters, digits, '-' and '_'.
    address: str  # Host name or IP address.
    port: int = 22
    user: str | None = None  # None: that of the controller's process.
    # Of an environment with the same release of Imagedex; a relative path starts from the home.
    python: str = DEFAULT_PYTHON
    workers: int = 1  # Processes; with GPUs one for each of them.
    threads: int = 0  # Cores that one worker may keep busy; 0 shares all among the workers.
    gpus: tuple[int, ...] = ()  # Numbers, as nvidia-smi tells them.
    paths: PathMapping = field(default_factory=PathMapping)  # Shares that are mounted elsewhere.
    models: str | None = None  # Directory of models there, if it is another.

    @property
    def slots(self) -> int:
        """How many workers the host has at once."""
        return len(self.gpus) or self.workers


class HostState(StrEnum):
    """What the engine can say of a host."""

    CONNECTING = "connecting"
    STARTING = "starting"  # Reached; its workers have not joined yet.
    READY = "ready"  # Workers take chunks.
    UNFIT = "unfit"  # It lacks what chunks need, or refuses; it is asked again each half minute.
    UNREACHABLE = "unreachable"  # It is tried again and again.


@dataclass(frozen=True, slots=True)
class HostReport:
    """A host as the engine sees it now."""

    name: str
    address: str
    state: HostState
    reason: str | None  # Why it is not ready, with what to do; None when it is.
    workers: tuple[WorkerInfo, ...]  # That are connected.
    since: float  # When the state began, in seconds since the epoch.


@dataclass(frozen=True, slots=True)
class ClusterPlan:
    """How the engine reaches other machines, and they it."""

    authority: Path  # Directory of the engine's certificate authority; is made.
    known_hosts: Path  # With the SSH keys of the hosts; nothing is added to it.
    ssh_keys: tuple[Path, ...] = ()  # Without any, the usual ones of the user.
    listen_host: str = "0.0.0.0"  # noqa: S104 - Strangers are turned away by mutual TLS.
    listen_port: int = 8786  # 0 takes any.
    contact_address: str | None = None  # By which hosts reach it; None: as SSH does.
    worker_ports: str = "8790:8849"  # That workers on other machines listen on.
    models: Path | None = None  # The controller's; ``models`` of a host stands for it there.

    @property
    def listening(self) -> tuple[str, int]:
        """The address and port that the engine listens on."""
        return self.listen_host, self.listen_port
