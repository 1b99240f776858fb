"""How Imagedex wants Dask, in the controller and in every worker."""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

import dask.config
import distributed  # noqa: F401 - It brings the defaults.

from imagedex.engine._dask_tls import guard_listeners

_WISHES: dict[str, Any] = {
    # The engine itself counts the deaths under a chunk and runs it again (see _dispatch); Dask
    # cannot, since each chunk is pinned to one worker, and must not report a failure either.
    "distributed.scheduler.allowed-failures": 1,
    # A last net: the engine itself knows who waits for a worker, and calls no absent one.
    "distributed.scheduler.no-workers-timeout": "60s",
    # For the same reason there is nothing to steal or to balance.
    "distributed.scheduler.work-stealing": False,
    "distributed.scheduler.active-memory-manager.start": False,
    # A last net as well: the engine itself ends a worker that is silent (see _liveness).
    "distributed.scheduler.worker-ttl": "5 minutes",
    # Dask's HTTP pages have no authentication, not even under TLS.
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    # A dead connection is noticed after this; below 11 s a loaded machine looks dead.
    "distributed.comm.timeouts.tcp": "15s",
    "distributed.comm.timeouts.connect": "30s",
    "distributed.comm.require-encryption": True,
    # Results are small and taken at once: no spilling to disk, no pausing, no limits.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": False,
    # Sampling the stack every 10 ms and waking up every 20 ms costs a core for nothing here.
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.tick.limit": "30s",
    "distributed.admin.system-monitor.interval": "10s",
    "distributed.admin.system-monitor.log-length": 60,
    "distributed.admin.system-monitor.disk": False,
    "distributed.admin.system-monitor.gil.enabled": False,
    "distributed.diagnostics.nvml": False,
    # What Dask keeps for its developers must not grow with the number of chunks.
    "distributed.admin.log-length": 200,
    "distributed.admin.low-level-log-length": 200,
    "distributed.diagnostics.computations.max-history": 1,
    "distributed.diagnostics.erred-tasks.max-history": 1,
    "distributed.client.scheduler-info-interval": "60s",
}

_DASK_LOGGERS = (
    "distributed",
    "distributed.client",
    "distributed.gc",
    "bokeh",
    "tornado",
    "tornado.application",
)


@cache
def configure_dask() -> None:
    """Give this process the engine's Dask configuration and put Dask's logging in order.

    It starts from Dask's own defaults, so what a user's ``~/.config/dask`` or ``DASK_…``
    variables say for other programs has no part in it; those files are not touched. It holds
    for the whole process and to its end, because Dask reads it whenever it opens a connection.
    """
    defaults = dask.config.merge(*dask.config.defaults)
    dask.config.set(defaults)
    dask.config.set(_WISHES)
    guard_listeners()
    # Importing distributed gave these loggers handlers of their own that write to the terminal;
    # what is worth telling belongs into the log of the process.
    for name in _DASK_LOGGERS:
        logger = logging.getLogger(name)
        for handler in list(logger.handlers):
            logger.removeHandler(handler)
        logger.propagate = True
        logger.setLevel(logging.WARNING)
