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
    from imagedex.app import Application
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
    it raises HomeInUse when another one does.
    """
    with (
        local_application(settings, run_jobs=run_jobs, debug=debug) as application,
        client_of(application) as client,
    ):
        yield client


@contextmanager
def local_application(settings: Settings, *, run_jobs: bool, debug: bool) -> Iterator[Application]:
    """Yield the services of the local home, for what has no call in the API.

    ``run_jobs`` is as for ``local_client``; a rebuild that its jobs have left is done before the
    block ends. Whoever can read the home may do everything, so the admin key is one
    that lives as long as the block and is stored nowhere.
    """
    from pydantic import SecretStr

    from imagedex.app import build_application
    from imagedex.cli.logs import configure_logging

    configure_logging("debug" if debug else "warning", pretty=True, tracebacks=debug)
    admin_key = SecretStr(secrets.token_urlsafe(32))
    application = build_application(
        settings.model_copy(update={"admin_key": admin_key}), run_jobs=run_jobs
    )
    try:
        application.start()
        yield application
        if run_jobs:
            application.finish_upkeep()
    finally:
        application.close()


@contextmanager
def client_of(application: Application) -> Iterator[ImagedexClient]:
    """Yield a client of an application of this process, with its admin key."""
    from imagedex.api import create_api
    from imagedex.cli.in_process import InProcessTransport

    key = application.settings.admin_key
    assert key is not None  # noqa: S101 - local_application has set it.
    transport = InProcessTransport(create_api(application))
    with ImagedexClient("http://localhost", key.get_secret_value(), transport=transport) as client:
        yield client
