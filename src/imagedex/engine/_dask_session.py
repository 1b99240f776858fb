"""One run of the engine, from its start to its close."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from imagedex.core.errors import EngineError
from imagedex.core.paths import PathMapping
from imagedex.engine._authority import Authority
from imagedex.engine._dask_config import configure_dask
from imagedex.engine._dask_hub import DaskHub, address_here
from imagedex.engine._dispatch import Call, Dispatcher, HostLost, Wish, WorkerDied
from imagedex.engine._envelope import name_of, open_answer, seal_call, unfit_reason
from imagedex.engine._event_loop import EventLoopThread
from imagedex.engine._host import EngineTicket, Host
from imagedex.engine._host_times import HostTimes
from imagedex.engine._local_host import LocalHost
from imagedex.engine._remote import Connect
from imagedex.engine._scratch import scratch_directory
from imagedex.engine._ssh_host import SshHost
from imagedex.engine._worker_config import CHUNKS_AT_ONCE
from imagedex.engine.hosts import ClusterPlan, HostReport, HostSpec
from imagedex.engine.interfaces import Seat, WorkerInfo

_START_SECONDS = 60.0
_GRACE_SECONDS = 3.0  # For a worker to close its resources before it is killed.
_HUB_CLOSE_SECONDS = 12.0
_LOG_CHECK_SECONDS = 60.0
_ANSWER_THREADS = 8
_LOOPBACK = ("127.0.0.1", 0)


@dataclass(frozen=True, slots=True)
class SessionPlan:
    """What a session consists of."""

    make_local_host: Callable[[Callable[[], None]], LocalHost] | None  # Given whom to tell.
    hosts: tuple[HostSpec, ...]
    cluster: ClusterPlan | None  # None: no other machine takes part.
    connect: Connect | None  # How those are reached.
    make_check: Callable[[], bytes] | None  # A sealed call that raises UnfitWorker where it should.
    no_worker_seconds: float
    stall_seconds: float
    silent_seconds: float
    times: HostTimes


class DaskSession:
    """Hosts with their workers, the hub they connect to, and the calls they run.

    Is opened once, closed once. All methods may be called from any thread, and :meth:`close`
    also while :meth:`open` waits.
    """

    def __init__(self, plan: SessionPlan) -> None:
        self._plan = plan
        self._resources = contextlib.ExitStack()
        self._closing = threading.Lock()
        self._closed = False
        self._ready: Future[None] = Future()  # Done when the first worker can take work.
        # Before Dask puts its scratch directory on the module path of this process.
        make_local = plan.make_local_host
        self._local = None if make_local is None else make_local(self._host_failed)
        self._kept: dict[str, SshHost] = {}  # Hosts on other machines, by name,
        self._wanted: dict[str, HostSpec] = {}  # as they were asked for.
        self._past_starts: dict[str, int] = {}  # Agents of hosts that were taken away, by name.
        self._ticket: EngineTicket | None = None
        self._host_of: dict[str, Host] = {}  # By worker id; of those that are connected.
        self._checks: set[asyncio.Task[None]] = set()
        # Results are unpickled and callbacks called here: on the event loop a slow one would
        # hold up all workers.
        self._answers = ThreadPoolExecutor(_ANSWER_THREADS, thread_name_prefix="engine-answers")
        self._loop = EventLoopThread("engine")
        self._dispatcher = Dispatcher(
            self._run_on,
            self._settle,
            stop=self._stop_on,
            kill=self._end_worker,
            calls_per_worker=CHUNKS_AT_ONCE,
            no_worker_seconds=plan.no_worker_seconds,
            stall_seconds=plan.stall_seconds,
            why_no_worker=self._why_no_worker,
        )
        self._hub: DaskHub | None = None

    def open(self) -> None:
        """Start everything and return when the first worker can take work; raises EngineError."""
        configure_dask()
        cluster = self._plan.cluster
        authority = (
            Authority.new() if cluster is None else Authority.open_or_make(cluster.authority)
        )
        listen_host, listen_port = _LOOPBACK if cluster is None else cluster.listening
        try:
            scratch = self._resources.enter_context(scratch_directory())
            credentials = authority.leaf("controller")
            self._hub = DaskHub(
                credentials,
                scratch=scratch,
                listen_host=listen_host,
                listen_port=listen_port,
                silent_seconds=self._plan.silent_seconds,
                on_join=self._worker_joined,
                on_leave=self._worker_left,
                on_silent=self._end_worker,
                on_progress=self._dispatcher.note_progress,
            )
            port = self._loop.run(self._hub.start(), timeout_seconds=_START_SECONDS)
        except Exception as error:
            # Dask raises many things when it cannot listen: OSError, RuntimeError, ValueError.
            raise EngineError(
                f"The engine could not be started: {type(error).__name__}: {error}; it needs "
                f"port {listen_port or '(any)'} on {listen_host} and room in the temporary "
                "directory."
            ) from error
        self._ticket = EngineTicket(
            address=f"tls://{address_here(listen_host)}:{port}",
            port=port,
            credentials=credentials,
            authority=authority,
            scratch=scratch,
        )
        with self._closing:
            if self._closed:
                raise _closed_error()
            if self._local is not None:
                self._local.start(self._ticket)
            self._apply(self._plan.hosts)
        try:
            self._ready.result(_START_SECONDS)
        except TimeoutError as error:
            raise EngineError(
                f"No worker was ready within {_START_SECONDS:g} seconds; {self._why_no_worker()}"
            ) from error
        self._loop.call(self._bound_logs)

    def close(self) -> None:
        """End all workers and all calls, within seconds. Calling it again waits for the end."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
            self._resolve_ready(_closed_error())
            self._close_hosts(self._hosts)
            with contextlib.suppress(TimeoutError):
                self._loop.run(self._close_hub(), timeout_seconds=_HUB_CLOSE_SECONDS)
            self._loop.close(timeout_seconds=_HUB_CLOSE_SECONDS)
            # Not waiting: this may be one of the callbacks that run there.
            self._answers.shutdown(wait=False)
            self._resources.close()

    def reserve(self, *, group: str | None, alone: bool, apart_from: str | None) -> Future[Seat]:
        """Ask for a seat; see :class:`imagedex.engine.Engine`."""
        wish = Wish(Future(), group=group, alone=alone, apart_from=apart_from)
        if not self._loop.call(self._dispatcher.reserve, wish) or self._closed:
            _resolve(wish.future, _closed_error())
        return wish.future

    def submit(
        self, function: Callable[..., Any], payload: object, *, seat: Seat | None = None
    ) -> Future[Any]:
        """Run a function on a worker; raises TypeError when that could not import it."""
        try:
            sealed = seal_call(function, payload)
        except BaseException:
            if seat is not None:
                seat.release()
            raise
        call = Call(future=Future(), sealed=sealed, name=name_of(function))
        # A loop that is stopping takes callbacks and forgets them; what was accepted before the
        # close began is ended by it.
        if not self._loop.call(self._dispatcher.submit, call, seat) or self._closed:
            _resolve(call.future, _closed_error())
        return call.future

    def stop(self, future: Future[Any]) -> None:
        """Cancel a chunk, or have it end soon; see :class:`imagedex.engine.Engine`."""
        if not future.cancel():
            self._loop.call(self._dispatcher.stop, future)

    def workers(self) -> list[WorkerInfo]:
        """Return the workers that are connected now."""
        return self._dispatcher.snapshot()

    def apply(self, hosts: Sequence[HostSpec]) -> None:
        """Have these hosts, and no others beside this machine; returns before they are ready."""
        with self._closing:
            if not self._closed and self._ticket is not None:
                self._apply(hosts)

    def hosts(self) -> list[HostReport]:
        """Return what is known of the hosts on other machines, in order of their names."""
        workers = self.workers()
        return [
            HostReport(
                name=name,
                address=host.spec.address,
                state=host.state,
                reason=host.reason,
                workers=tuple(worker for worker in workers if worker.host == name),
                since=host.since,
            )
            for name, host in sorted(self._kept.copy().items())
        ]

    @property
    def _hosts(self) -> list[Host]:
        kept = self._kept.copy().values()
        return list(kept) if self._local is None else [self._local, *kept]

    def _apply(self, specs: Sequence[HostSpec]) -> None:
        """Close what is not wanted as it is, and start what is missing; holding the lock."""
        assert self._ticket is not None  # noqa: S101 - Hosts come after the hub.
        wanted = {spec.name: spec for spec in specs}
        others = [
            host for name, host in self._kept.items() if self._wanted.get(name) != wanted.get(name)
        ]
        self._close_hosts(others)
        for host in others:
            del self._kept[host.name]
            self._past_starts[host.name] = host.starts
        self._wanted = wanted
        for name, spec in wanted.items():
            if name not in self._kept:
                self._kept[name] = host = self._make_host(spec)
                host.start(self._ticket)

    def _make_host(self, spec: HostSpec) -> SshHost:
        cluster, connect = self._plan.cluster, self._plan.connect
        assert cluster is not None  # noqa: S101 - Without one there are no specs.
        assert connect is not None  # noqa: S101 - Likewise.
        if cluster.models is not None and spec.models is not None:
            models = (str(cluster.models), spec.models)
            spec = replace(spec, paths=PathMapping([*spec.paths.pairs, models]))
        return SshHost(
            spec,
            loop=self._loop,
            connect=connect,
            contact_address=cluster.contact_address,
            worker_ports=cluster.worker_ports,
            past_starts=self._past_starts.get(spec.name, 0),
            on_failing=self._host_failed,
            on_lost=self._host_lost,
            times=self._plan.times,
        )

    def _close_hosts(self, hosts: Sequence[Host]) -> None:
        # Side by side: one that is cut off takes its time.
        closers = [
            threading.Thread(target=host.close, kwargs={"grace_seconds": _GRACE_SECONDS})
            for host in hosts
        ]
        for closer in closers:
            closer.start()
        for closer in closers:
            closer.join()

    async def _close_hub(self) -> None:
        self._dispatcher.close(_closed_error())
        if self._hub is not None:
            await self._hub.close()

    async def _run_on(self, worker_id: str, call: Call) -> bytes:
        assert self._hub is not None  # noqa: S101 - There is a worker, so there is a hub.
        answer = await self._hub.run(worker_id, call.sealed, call.call_id)
        reason = unfit_reason(answer)
        if reason is None:
            return answer
        host = self._host_of.get(worker_id)
        if isinstance(host, SshHost):
            host.declare_unfit(reason)
        raise HostLost(reason)

    async def _stop_on(self, worker_id: str, call_id: str) -> None:
        assert self._hub is not None  # noqa: S101 - There is a worker, so there is a hub.
        await self._hub.stop_call(worker_id, call_id)

    def _worker_joined(self, worker_id: str) -> bool:
        """Count on a worker, once its host is known to be fit; False when no host started it."""
        host = next((host for host in self._hosts if host.expects(worker_id)), None)
        if host is None:
            return False
        self._host_of[worker_id] = host
        if isinstance(host, SshHost):
            check = asyncio.get_running_loop().create_task(self._check(worker_id, host))
            self._checks.add(check)
            check.add_done_callback(self._checks.discard)
        else:
            self._count_on(worker_id)
        return True

    async def _check(self, worker_id: str, host: SshHost) -> None:
        """Count on a worker of another machine if what chunks need is there."""
        assert self._hub is not None  # noqa: S101 - A worker has joined it.
        reason = None
        try:
            if self._plan.make_check is not None:
                seal = asyncio.get_running_loop().run_in_executor
                sealed = await seal(self._answers, self._plan.make_check)
                answer = await self._hub.run(worker_id, sealed, f"check-{uuid.uuid4().hex}")
                reason = unfit_reason(answer)
                if reason is None:
                    await seal(self._answers, open_answer, answer)
        except WorkerDied:
            return
        except Exception as error:
            reason = f"Host {host.name} could not be checked: {type(error).__name__}: {error}"
        if worker_id not in self._host_of:
            return
        if reason is None:
            self._count_on(worker_id)
            host.worker_ready()
        else:
            host.declare_unfit(reason)

    def _count_on(self, worker_id: str) -> None:
        host = self._host_of[worker_id].name
        slot = f"{host}/{worker_id.partition('.')[0]}"
        self._dispatcher.add_worker(worker_id, host=host, slot=slot)
        self._resolve_ready(None)

    def _worker_left(self, worker_id: str) -> None:
        self._dispatcher.remove_worker(worker_id)
        # Whatever cut it off, it may still run: its slot is needed for one that answers.
        self._end_worker(worker_id)
        del self._host_of[worker_id]

    def _end_worker(self, worker_id: str) -> None:
        # Not on this thread, since the host may hold its lock while it starts another process.
        host = self._host_of.get(worker_id)  # None for one that has just left.
        if host is not None and not self._closed:
            asyncio.get_running_loop().run_in_executor(self._answers, host.kill, worker_id)

    def _host_lost(self, lost: SshHost) -> None:
        assert self._hub is not None  # noqa: S101 - Hosts come after the hub.
        for worker_id in [name for name, host in self._host_of.items() if host is lost]:
            self._hub.kick(worker_id, is_host_lost=True)

    def _host_failed(self) -> None:
        if all(host.is_failing for host in self._hosts) and not self._closed:
            # Does nothing when a worker has been ready once.
            self._resolve_ready(EngineError(f"No worker could be started: {self._why_no_worker()}"))

    def _why_no_worker(self) -> str:
        told = [host.why_no_worker() for host in self._hosts]
        return "\n".join(told) or "no host is named in the inventory."

    def _resolve_ready(self, error: EngineError | None) -> None:
        # The first word counts, whoever says it.
        with contextlib.suppress(InvalidStateError):
            if error is None:
                self._ready.set_result(None)
            else:
                self._ready.set_exception(error)

    def _settle(self, call: Call, answer: bytes | BaseException) -> None:
        self._answers.submit(_resolve, call.future, answer)

    def _bound_logs(self) -> None:
        # Those on other machines are the business of their agents.
        if self._local is not None:
            self._local.bound_logs()
        asyncio.get_running_loop().call_later(_LOG_CHECK_SECONDS, self._bound_logs)


def _closed_error() -> EngineError:
    return EngineError(
        "The engine was closed before the chunk ended; start the engine and run the chunk again."
    )


def _resolve(future: Future[Any], answer: bytes | BaseException) -> None:
    error: BaseException | None = None
    result = None
    if isinstance(answer, BaseException):
        error = answer
    else:
        try:
            result = open_answer(answer)
        except BaseException as raised:
            # It is the chunk's exception, whatever it is, and belongs to who asked.
            error = raised
    # While the engine closes, a future can be ended from two sides; the first one counts.
    with contextlib.suppress(InvalidStateError):
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)
