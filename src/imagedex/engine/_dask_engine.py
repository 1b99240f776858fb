"""The engine: worker processes of this machine and of others, reached through Dask."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from imagedex.core.errors import EngineError, SettingsError
from imagedex.core.long_lived import spare_long_lived_objects
from imagedex.engine._envelope import seal_call
from imagedex.engine._host_times import HostTimes
from imagedex.engine._remote import Connect
from imagedex.engine.hosts import ClusterPlan, HostReport, HostSpec
from imagedex.engine.interfaces import ChunkFunction, PayloadT, ResultT, Seat, WorkerInfo

if TYPE_CHECKING:
    from imagedex.engine._dask_session import DaskSession
    from imagedex.engine._local_host import LocalHost

HostCheck = Callable[[], tuple[ChunkFunction[Any, None], Any]]
"""Returns a chunk, and its payload, that raises UnfitWorker on a host of no use."""


class DaskEngine:
    """Runs chunks in processes of this machine and of others, two at a time in each.

    Workers run at lower priority than the controller (nice +10, batch scheduling), are replaced
    when they die, and never outlive the controller, not even its ``kill -9``; those of a machine
    that is cut off end within seconds. A chunk without a
    seat whose worker dies is run once more, alone on a worker; when that one dies too, the chunk's
    future ends with WorkerLost and the other chunks go on.

    A chunk counts as begun, and its future can no longer be cancelled, when it is handed to a
    worker. Callbacks of futures are called on threads of the engine; they may submit chunks,
    but should not wait for any. Dask is imported at the first start, which takes about a second.

    Parameters
    ----------
    workers
        Number of worker processes.
    threads_per_worker
        Cores that one worker may keep busy; 0 shares those of the machine among the workers.
    log_dir
        Gets a file ``worker-N.log`` for each worker; is made when it is not there.
    no_worker_seconds
        Who waits for a worker this long while none is connected is told so.
    stall_seconds
        A chunk that makes no progress for so long has its worker ended.
    silent_seconds
        A worker whose interpreter is stuck for so long is ended.
    cluster
        How other machines take part; None: they do not, and the engine listens on loopback only.
    hosts
        Those machines, until :meth:`apply` names others.
    check
        What is run on each worker of another machine before it gets chunks.
    connect
        How those machines are reached; by default over SSH.
    times
        How patiently they are kept.
    """

    def __init__(
        self,
        *,
        workers: int,
        threads_per_worker: int = 0,
        log_dir: Path,
        no_worker_seconds: float = 60.0,
        stall_seconds: float = 300.0,
        silent_seconds: float = 30.0,
        cluster: ClusterPlan | None = None,
        hosts: Sequence[HostSpec] = (),
        check: HostCheck | None = None,
        connect: Connect | None = None,
        times: HostTimes | None = None,
    ) -> None:
        if workers < (0 if cluster else 1):
            raise ValueError(f"workers is {workers}; it must be at least 1 without other hosts.")
        if threads_per_worker < 0:
            raise ValueError(f"threads_per_worker is {threads_per_worker}; it must not be < 0.")
        self._workers = workers
        # The cores that this process may use: a container or taskset may allow fewer than exist.
        self._threads = threads_per_worker or max(
            1, len(os.sched_getaffinity(0)) // max(1, workers)
        )
        self._log_dir = log_dir
        self._no_worker_seconds = no_worker_seconds
        self._stall_seconds = stall_seconds
        self._silent_seconds = silent_seconds
        self._cluster = cluster
        self._specs = tuple(hosts)
        self._check = check
        self._connect = _ssh(cluster) if cluster is not None and connect is None else connect
        self._times = times or HostTimes()
        self._starting = threading.Lock()
        self._session: DaskSession | None = None

    def start(self) -> None:
        """Start the workers, and return when the first can take work."""
        with self._starting:
            if self._session is not None:
                return
            try:
                from imagedex.engine._dask_session import DaskSession, SessionPlan
            except ModuleNotFoundError as error:
                raise EngineError(
                    f"The engine needs the package {error.name!r}, which is not installed; "
                    "run: pip install distributed cryptography"
                ) from error
            session = DaskSession(
                SessionPlan(
                    make_local_host=self._make_local_host if self._workers else None,
                    hosts=self._specs,
                    cluster=self._cluster,
                    connect=self._connect,
                    make_check=None if self._check is None else self._seal_check,
                    no_worker_seconds=self._no_worker_seconds,
                    stall_seconds=self._stall_seconds,
                    silent_seconds=self._silent_seconds,
                    times=self._times,
                )
            )
            # Known before it is open, so that close() reaches it while it waits for a worker.
            self._session = session
            try:
                session.open()
            except BaseException:
                # Also when Ctrl-C arrives here: half an engine must not stay behind.
                self._session = None
                session.close()
                raise
            spare_long_lived_objects()  # Dask's modules have just been loaded.

    def close(self) -> None:
        """End all workers, within seconds, also those that hang. Calling it again does nothing."""
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def workers(self) -> list[WorkerInfo]:
        """Return the workers that are connected now (an empty list when not started)."""
        session = self._session
        return [] if session is None else session.workers()

    def apply(self, hosts: Sequence[HostSpec]) -> None:
        """Have workers on these hosts, and on no others beside this machine.

        Returns before they are ready, and holds for later starts too. What runs on a host that
        is taken away, or that changes, runs again elsewhere. Raises SettingsError when the engine
        was made for this machine alone, and for a name that stands there twice.
        """
        if hosts and self._cluster is None:
            raise SettingsError(
                "The engine listens on this machine alone, so no other can take part; set "
                "IMAGEDEX_ENGINE__INVENTORY and start the server again."
            )
        names = [spec.name for spec in hosts]
        if len(set(names)) < len(names):
            raise SettingsError(f"Two of the hosts {', '.join(sorted(names))} have the same name.")
        with self._starting:
            self._specs = tuple(hosts)
            if self._session is not None:
                self._session.apply(self._specs)

    def hosts(self) -> list[HostReport]:
        """Return what is known of the hosts on other machines; none while it is not started."""
        session = self._session
        return [] if session is None else session.hosts()

    def reserve(
        self, *, group: str | None = None, alone: bool = False, apart_from: str | None = None
    ) -> Future[Seat]:
        """Ask for a seat, of which each worker has two.

        While the engine is not started the future ends at once with EngineError.
        """
        session = self._session
        if session is None:
            return _refused()
        return session.reserve(group=group, alone=alone, apart_from=apart_from)

    def submit(
        self,
        function: ChunkFunction[PayloadT, ResultT],
        payload: PayloadT,
        *,
        seat: Seat | None = None,
    ) -> Future[ResultT]:
        """Run ``function(context, payload)`` on a seat's worker, or on the next that is free.

        Raises TypeError when a worker could not import the function. While the engine is not
        started the future ends at once with EngineError.
        """
        session = self._session
        if session is None:
            return _refused()
        return cast("Future[ResultT]", session.submit(function, payload, seat=seat))

    def stop(self, future: Future[Any]) -> None:
        """Cancel a chunk, or have one that has begun end at its next sign of progress."""
        session = self._session
        if session is not None:
            session.stop(future)

    def _make_local_host(self, on_failing: Callable[[], None]) -> LocalHost:
        from imagedex.engine._local_host import LocalHost

        return LocalHost(
            workers=self._workers,
            threads_per_worker=self._threads,
            log_dir=self._log_dir,
            on_failing=on_failing,
        )

    def _seal_check(self) -> bytes:
        assert self._check is not None  # noqa: S101 - Else nobody asks for it.
        return seal_call(*self._check())


def _ssh(cluster: ClusterPlan) -> Connect:
    """Return how hosts are reached by SSH. Raises SettingsError when its package is missing."""
    try:
        from imagedex.engine._ssh import SshConnection, SshSettings
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"Workers on other hosts need the package {error.name!r}, which is not installed; "
            "run: pip install 'imagedex[cluster]'"
        ) from error
    settings = SshSettings(known_hosts=cluster.known_hosts, keys=cluster.ssh_keys)
    return lambda spec: SshConnection.open(spec, settings)


def _refused() -> Future[Any]:
    refused: Future[Any] = Future()
    refused.set_exception(
        EngineError("The engine is not running; start it and run the chunk again.")
    )
    return refused
