"""The server process, from its socket to its end."""

from __future__ import annotations

import ipaddress
import math
import resource
import signal
import socket
import time

import structlog
import uvicorn

from imagedex.api import create_api
from imagedex.app import Application, build_application
from imagedex.cli.http_protocol import BoundedHttpProtocol
from imagedex.cli.listener import cannot_listen
from imagedex.cli.output import write_note
from imagedex.cli.service_manager import ServiceManager, Watchdog
from imagedex.cli.signals import endings_put_off
from imagedex.core.errors import ModelError, SettingsError
from imagedex.core.long_lived import spare_long_lived_objects
from imagedex.settings import ServerSettings, Settings
from imagedex.web import add_pages

_log = structlog.get_logger(__name__)

_BACKLOG = 1024
_MAX_OPEN_FILES = 65_536


def run_server(settings: Settings, listener: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT, then end open requests, jobs and workers in good order.

    ``listener`` is a bound socket. Raises CommandFailed when it cannot listen, HomeInUse, and
    SettingsError, also for a model that cannot be used.
    """
    raise_open_files_limit()
    application = _build(settings)
    try:
        application.start()
        _announce_first_key(application)
        application.warm()
        _serve(application, listener, settings.server)
    except KeyboardInterrupt:
        # Ctrl-C is how a server in a terminal is meant to be stopped: not a failure.
        _log.info("interrupted")
    finally:
        # What follows must come to its end; a supervisor that asks once more knows SIGKILL,
        # and an impatient operator may press Ctrl-C again.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        application.close()
        _log.info("stopped")


def _build(settings: Settings) -> Application:
    try:
        return build_application(settings, run_jobs=True, is_server=True)
    except ModelError as error:
        raise SettingsError(f"The model of the settings cannot be used: {error}") from error


def raise_open_files_limit() -> None:
    """Let this process open as many files as it may, 65,536 at most; each connection is one.

    The soft limit is 1024 on many systems, for the sake of programs that use select().
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _MAX_OPEN_FILES)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (ValueError, OSError) as error:  # The system may have a lower limit of its own.
        _log.warning("open_files_limit_kept", limit=soft, reason=str(error))


def _serve(application: Application, listener: socket.socket, server: ServerSettings) -> None:
    api = create_api(application)
    add_pages(api)
    config = uvicorn.Config(
        api,
        log_config=None,  # Its loggers write to the root, which is configured already.
        access_log=False,  # The API writes one line for each request itself.
        server_header=False,
        http=BoundedHttpProtocol,
        proxy_headers=False,  # No proxy is trusted.
        ws="none",
        timeout_graceful_shutdown=math.ceil(server.shutdown_seconds),
    )
    try:
        listener.listen(_BACKLOG)
    except OSError as error:
        raise cannot_listen(server, error) from error
    host, port = listener.getsockname()[:2]
    if not _is_loopback(host):
        _log.warning(
            "listening_without_tls",
            host=host,
            advice="Keys and pictures cross the network unencrypted; "
            "put a proxy with TLS in front, or listen on 127.0.0.1.",
        )
    url_host = f"[{host}]" if ":" in host else host
    _log.info("listening", url=f"http://{url_host}:{port}")
    with endings_put_off():
        spare_long_lived_objects()
    service_manager = ServiceManager.of()
    uvicorn_server = _Server(config, service_manager, f"http://{url_host}:{port}")
    watchdog = Watchdog(
        service_manager,
        lambda patience: [
            *uvicorn_server.stalled(patience),
            *application.stalled_threads(patience),
        ],
    )
    watchdog.start()
    try:
        uvicorn_server.run(sockets=[listener])
    finally:
        watchdog.close()


class _Server(uvicorn.Server):
    """Uvicorn, which tells the service manager when it answers and when it ends."""

    def __init__(self, config: uvicorn.Config, service_manager: ServiceManager, url: str) -> None:
        super().__init__(config)
        self._service_manager = service_manager
        self._url = url
        self._ticked_at = time.monotonic()

    def stalled(self, patience_seconds: float) -> list[str]:
        """Return ``api-loop`` when the event loop has not moved for so long."""
        is_late = time.monotonic() - self._ticked_at > patience_seconds
        return ["api-loop"] if is_late else []

    async def on_tick(self, counter: int) -> bool:
        """Be called on the event loop about ten times a second."""
        self._ticked_at = time.monotonic()
        return await super().on_tick(counter)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer, and say so."""
        await super().startup(sockets)
        if self.started:
            self._service_manager.ready(f"Listening on {self._url}")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Say so, and end: from here on neither the loop nor the jobs have to move."""
        self._service_manager.stopping()
        await super().shutdown(sockets)


def _announce_first_key(application: Application) -> None:
    secret = application.keys.ensure_admin_key()
    if secret is not None:
        write_note("The first admin key, shown only this once (send it as X-API-Key):")
        write_note(f"  {secret}")


def _is_loopback(host: str) -> bool:
    return ipaddress.ip_address(host.partition("%")[0]).is_loopback
