"""Which server a command speaks to: one that runs somewhere, or the home of this machine."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from imagedex.cli.failures import CommandFailed
from imagedex.cli.invocation import Invocation
from imagedex.client import ImagedexClient

if TYPE_CHECKING:
    from imagedex.settings import Settings

URL_VARIABLE = "IMAGEDEX_URL"
KEY_VARIABLE = "IMAGEDEX_API_KEY"


def is_remote(environment: Mapping[str, str] = os.environ) -> bool:
    """Say whether commands speak to a running server."""
    return bool(environment.get(URL_VARIABLE))


@contextmanager
def connect(invocation: Invocation) -> Iterator[ImagedexClient]:
    """Yield a client of the server that the environment names, or else of the local home.

    The local home can be asked while a server runs its jobs; nothing here takes it over.
    """
    if is_remote():
        with remote_client() as client:
            yield client
    else:
        with local_client(invocation.settings(), run_jobs=False, debug=invocation.debug) as client:
            yield client


def remote_client(environment: Mapping[str, str] = os.environ) -> ImagedexClient:
    """Return a client of the server that the environment names."""
    url = environment[URL_VARIABLE]
    api_key = environment.get(KEY_VARIABLE)
    if not api_key:
        raise CommandFailed(
            f"{URL_VARIABLE} is {url!r}, but {KEY_VARIABLE} is not set. Set it to a key of that "
            f"server, or unset {URL_VARIABLE} to work on IMAGEDEX_HOME directly."
        )
    return ImagedexClient(url, api_key)


@contextmanager
def local_client(settings: Settings, *, run_jobs: bool, debug: bool) -> Iterator[ImagedexClient]:
    """Yield a client of the local home: the very same API, answered in this process.

    With ``run_jobs`` this process takes the home and runs its jobs, until the block ends;
    it raises HomeInUse when another one does. Whoever can read the home may do everything,
    so the key is one that lives as long as the block and is stored nowhere.
    """
    from pydantic import SecretStr

    from imagedex.api import create_api
    from imagedex.app import build_application
    from imagedex.cli.in_process import InProcessTransport
    from imagedex.cli.logs import configure_logging

    configure_logging("debug" if debug else "warning", pretty=True, tracebacks=debug)
    api_key = secrets.token_urlsafe(32)
    application = build_application(
        settings.model_copy(update={"admin_key": SecretStr(api_key)}), run_jobs=run_jobs
    )
    try:
        application.start()
        transport = InProcessTransport(create_api(application))
        with ImagedexClient("http://localhost", api_key, transport=transport) as client:
            yield client
    finally:
        application.close()
