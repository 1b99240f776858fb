"""A host on another machine: how it is reached, kept, given up and taken back."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Any

from imagedex.core.errors import (
    HostRefused,
    HostUnreachable,
    SettingsError,
    UnfitWorker,
)
from imagedex.engine._agent_wire import (
    Begin,
    Exit,
    Hello,
    Lines,
    WireError,
    line_of,
    read_line,
)
from imagedex.engine._event_loop import EventLoopThread
from imagedex.engine._host import EngineTicket
from imagedex.engine._host_times import LEAF_DAYS, HostTimes
from imagedex.engine._release import Release, own_release
from imagedex.engine._remote import Connect, RemoteConnection, RemoteProcess
from imagedex.engine.hosts import HostSpec, HostState

_AGENT_MODULE = "imagedex.engine._agent"
_HELLO_SECONDS = 20.0
_BEGIN_SECONDS = 40.0  # An older agent may have to end by itself.
_MAX_GREETING_BYTES = 65536  # That a shell may print before the agent speaks.
_END_SECONDS = 2.0

_log = logging.getLogger(__name__)


class _Renewal(Exception):
    """The leaf of the agent is old; it is started anew with another."""


class SshHost:
    """A machine whose workers an agent runs, which is started anew whenever it is lost.

    Safe to call from several threads.

    Parameters
    ----------
    spec
        What the operator says of it.
    loop
        Where all of it happens.
    connect
        Opens a connection to it.
    contact_address
        By which the host reaches this machine; None: the one that it sees anyway.
    worker_ports
        That its workers listen on.
    past_starts
        How many agents the session had there before, so that no worker's name comes twice.
    on_failing
        Is called whenever the host turns out not to be of use.
    on_lost
        Is called, on the loop, when the workers that the host had are to be counted on no more.
    """

    def __init__(
        self,
        spec: HostSpec,
        *,
        loop: EventLoopThread,
        connect: Connect,
        contact_address: str | None,
        worker_ports: str,
        past_starts: int,
        on_failing: Callable[[], None],
        on_lost: Callable[[SshHost], None],
        times: HostTimes = HostTimes(),  # noqa: B008 - It is immutable.
    ) -> None:
        self.spec = spec
        self.name = spec.name
        self._loop = loop
        self._connect = connect
        self._contact_address = contact_address
        self._ports = worker_ports
        self._on_failing = on_failing
        self._on_lost = on_lost
        self._times = times
        self._keeping: asyncio.Task[None] | None = None
        self._process: RemoteProcess | None = None
        self._unfit: asyncio.Future[str] | None = None  # Ends when the host turns out unfit.
        self.starts = past_starts
        self._release: Release | None = None
        self._last_exit: Exit | None = None
        self._has_failed = False
        self._log_directory = ""
        self.state = HostState.CONNECTING
        self.reason: str | None = None
        self.since = time.time()

    @property
    def slots(self) -> int:
        """How many workers it has at once."""
        return self.spec.slots

    @property
    def is_failing(self) -> bool:
        """Whether it is of no use now, or its workers have failed to start."""
        return self.state in (HostState.UNFIT, HostState.UNREACHABLE) or (
            self._has_failed and self.state is HostState.STARTING
        )

    def start(self, ticket: EngineTicket) -> None:
        """Begin to keep the host; returns at once."""
        self._loop.call(self._begin_keeping, ticket)

    def expects(self, worker_id: str) -> bool:
        """Say whether the agent that runs now starts workers of this id."""
        first = self.starts == 1 and any(
            worker_id == f"{self.name}-{slot}" for slot in range(1, self.slots + 1)
        )
        return self._process is not None and (
            first
            or any(
                worker_id.startswith(f"{self.name}-{slot}.{self.starts}.")
                for slot in range(1, self.slots + 1)
            )
        )

    def worker_ready(self) -> None:
        """Note that a worker has joined and is fit. To be called on the loop."""
        self._has_failed = False
        if self.state is not HostState.READY:
            self._be(HostState.READY, None)

    def declare_unfit(self, reason: str) -> None:
        """Have all workers end, and ask again later. To be called on the loop."""
        if self._unfit is not None and not self._unfit.done():
            self._unfit.set_result(reason)

    def kill(self, worker_id: str) -> None:
        """End a worker that may no longer answer; another one takes its place."""
        self._loop.call(self._say, "kill", worker_id)

    def why_no_worker(self) -> str:
        """Return what is known of workers that are missing, in words for an operator."""
        if self.reason is not None:
            return self.reason
        if self._last_exit is None:
            return f"host {self.name} is {self.state.value}."
        return _how_it_ended(self.name, self._last_exit, self._log_directory)

    def close(self, *, grace_seconds: float) -> None:
        """End the agent and with it all workers, or leave them to it when the host is cut off."""
        # What is not closed by then ends with the loop; the agent's deadman ends the workers.
        with contextlib.suppress(TimeoutError):
            self._loop.run(self._close(grace_seconds), timeout_seconds=grace_seconds + _END_SECONDS)

    def _begin_keeping(self, ticket: EngineTicket) -> None:
        self._keeping = asyncio.get_running_loop().create_task(self._keep(ticket))

    async def _close(self, grace_seconds: float) -> None:
        keeping, self._keeping = self._keeping, None
        process = self._process
        if keeping is None:
            return
        if process is not None:
            process.write(line_of("end", None))
            # The task ends when the agent does.
            await asyncio.wait({keeping}, timeout=grace_seconds)
        keeping.cancel()
        await asyncio.wait({keeping}, timeout=_END_SECONDS)

    async def _keep(self, ticket: EngineTicket) -> None:
        failures = 0
        while True:
            began = time.monotonic()
            try:
                await self._serve(ticket)
                pause = 0.0
            except _Renewal:
                pause = 0.0
            except (HostRefused, UnfitWorker, SettingsError) as error:
                self._be(HostState.UNFIT, str(error))
                pause = self._times.unfit_pause
            except HostUnreachable as error:
                # Whoever was there for a while is back soon.
                failures = 0 if time.monotonic() - began > self._times.lost else failures
                pauses = self._times.unreachable_pauses
                pause = pauses[min(failures, len(pauses) - 1)]
                failures += 1
                self._be(HostState.UNREACHABLE, str(error))
            except Exception as error:
                # Whatever it is, a host that is given up for good would help nobody.
                _log.exception("Host %s could not be served.", self.name)
                self._be(HostState.UNFIT, f"Host {self.name}: {type(error).__name__}: {error}")
                pause = self._times.unfit_pause
            finally:
                self._process = None
                self._on_lost(self)
            if self._keeping is None:
                return  # The agent ended because it was told to.
            if self.reason is not None:
                self._on_failing()
            await asyncio.sleep(pause)

    async def _serve(self, ticket: EngineTicket) -> None:
        """Have an agent run until the host is lost, unfit or closed."""
        if self.reason is None:
            self._be(HostState.CONNECTING, None)
        connection = await self._connect(self.spec)
        try:
            process = await connection.start([self.spec.python, "-P", "-m", _AGENT_MODULE])
            await self._run_agent(process, connection, ticket)
        finally:
            connection.abort()

    async def _run_agent(
        self, process: RemoteProcess, connection: RemoteConnection, ticket: EngineTicket
    ) -> None:
        messages: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()
        reading = asyncio.create_task(self._read(process, messages))
        try:
            hello = Hello.from_fields(
                await self._expect("hello", messages, reading, _HELLO_SECONDS)
            )
            await self._require_same_release(hello.release)
            self.starts += 1
            self._last_exit = None
            begin = self._begin_of(connection, ticket)
            process.write(line_of("begin", begin.to_fields()))
            # From here on workers may join.
            self._process = process
            self._unfit = asyncio.get_running_loop().create_future()
            # They may do so before the answer is read.
            if self.reason is None:
                self._be(HostState.STARTING, None)
            began = await self._expect("began", messages, reading, _BEGIN_SECONDS)
            self._log_directory = str(began["log_directory"])
            await self._attend(process, messages, reading)
        except WireError as error:
            raise HostRefused(
                f"The agent on host {self.name} is not understood: {error}; {self.spec.python} "
                "there must be of the controller's release."
            ) from error
        finally:
            reading.cancel()
            if self._unfit is not None:
                self._unfit.cancel()

    async def _attend(
        self,
        process: RemoteProcess,
        messages: asyncio.Queue[tuple[str, Any]],
        reading: asyncio.Task[str],
    ) -> None:
        """Ping the agent and hear it, until it is silent or has ended."""
        assert self._unfit is not None  # noqa: S101 - It was made with the agent.
        now = time.monotonic
        heard_at = started_at = now()
        next_ping, pings = now(), 0
        while True:
            if now() >= next_ping:
                pings += 1
                process.write(line_of("ping", pings))
                next_ping = now() + self._times.ping
            if now() - heard_at > self._times.lost:
                raise HostUnreachable(
                    f"Host {self.name} ({self.spec.address}) has not answered for "
                    f"{self._times.lost:g} seconds; it is tried again."
                )
            if now() - started_at > self._times.leaf:
                raise _Renewal
            getting = asyncio.ensure_future(messages.get())
            events: set[asyncio.Future[Any]] = {getting, reading, self._unfit}
            try:
                await asyncio.wait(
                    events,
                    timeout=max(0.0, next_ping - now()),
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if getting.done():
                    heard_at = now()
                    self._hear(*getting.result())
                elif self._unfit.done():
                    raise UnfitWorker(self._unfit.result())
                elif reading.done():
                    if self._keeping is None:
                        return
                    raise HostUnreachable(
                        f"The agent on host {self.name} {reading.result()}; it is started again."
                    )
            finally:
                getting.cancel()

    def _hear(self, kind: str, content: Any) -> None:
        if kind == "exit":
            self._last_exit = exit_ = Exit.from_fields(content)
            _log.warning("%s", _how_it_ended(self.name, exit_, self._log_directory))
            if self.state is not HostState.READY:
                self._has_failed = True
                self._on_failing()
        elif kind == "failed":
            raise HostUnreachable(f"The agent on host {self.name} ended: {str(content)[:1000]}.")
        elif kind != "pong":
            raise WireError(f"{kind!r} is not known here")

    async def _expect(
        self,
        kind: str,
        messages: asyncio.Queue[tuple[str, Any]],
        reading: asyncio.Task[str],
        timeout_seconds: float,
    ) -> Any:
        """Return what the next message says; raises HostRefused when another or none comes."""
        getting = asyncio.ensure_future(messages.get())
        try:
            await asyncio.wait(
                {getting, reading}, timeout=timeout_seconds, return_when=asyncio.FIRST_COMPLETED
            )
            if getting.done():
                said, content = getting.result()
                if said != kind:
                    self._hear(said, content)
                    raise WireError(f"{said!r} came where {kind!r} was expected")
                return content
            if reading.done():
                raise HostRefused(
                    f"On host {self.name} ({self.spec.address}) no agent could be started: "
                    f"{self.spec.python} {reading.result()}. It must be the Python of an "
                    "environment with this release of Imagedex (`python` in the inventory)."
                )
            raise HostUnreachable(
                f"The agent on host {self.name} said nothing for {timeout_seconds:g} seconds; it "
                "is started again."
            )
        finally:
            getting.cancel()

    async def _read(self, process: RemoteProcess, messages: asyncio.Queue[tuple[str, Any]]) -> str:
        """Take what the agent says, and return how it ended. Raises HostUnreachable, WireError."""
        lines, skipped, has_begun = Lines(), 0, False
        async for data in process.output():
            for line in lines.feed(data):
                # A shell may greet before the agent says its first words.
                if not has_begun and not line.startswith(b'{"hello"'):
                    skipped += len(line)
                    if skipped > _MAX_GREETING_BYTES:
                        raise WireError("it is not the agent that speaks")
                    continue
                has_begun = True
                messages.put_nowait(read_line(line))
        how = await process.wait()
        complaints = process.complaints().splitlines()[-3:]
        return f"{how}: {' / '.join(complaints)}" if complaints else how

    async def _require_same_release(self, found: Release) -> None:
        if self._release is None:
            # It reads a few hundred files.
            self._release = await asyncio.to_thread(own_release)
        difference = self._release.difference(found)
        if difference is not None:
            raise UnfitWorker(
                f"Host {self.name} ({self.spec.address}) has {difference}: install the "
                f"controller's release into the environment of {self.spec.python} there."
            )

    def _begin_of(self, connection: RemoteConnection, ticket: EngineTicket) -> Begin:
        contact = self._contact_address or connection.own_address
        place = f"[{contact}]" if ":" in contact else contact
        return Begin(
            host=self.name,
            installation=ticket.authority.installation,
            start=self.starts,
            scheduler_address=f"tls://{place}:{ticket.port}",
            credentials=ticket.authority.leaf(self.name, days=LEAF_DAYS),
            workers=self.spec.workers,
            threads=self.spec.threads,
            gpus=self.spec.gpus,
            paths=self.spec.paths.pairs,
            ports=self._ports,
        )

    def _say(self, kind: str, content: Any) -> None:
        if self._process is not None:
            self._process.write(line_of(kind, content))

    def _be(self, state: HostState, reason: str | None) -> None:
        if (state, reason) != (self.state, self.reason):
            if state is HostState.READY:
                _log.info("Host %s is ready.", self.name)
            elif reason is not None:
                _log.warning("Host %s is %s: %s", self.name, state.value, reason)
        if state is not self.state:
            self.since = time.time()
        self.state, self.reason = state, reason


def _how_it_ended(host: str, exit_: Exit, log_directory: str) -> str:
    return (
        f"Worker {exit_.worker_id!r} on host {host} {exit_.how}. Its log, below "
        f"{log_directory!r} there, ends with:\n{exit_.log_tail}"
    )
