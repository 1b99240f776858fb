"""A CLIP model whose files the user has, and the cores to run it on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from imagedex.cli.commands.models.home import model_store
from imagedex.cli.failures import CommandFailed

if TYPE_CHECKING:
    from imagedex.settings import Settings


def files_directory(name: str, settings: Settings) -> Path:
    """Return where the files of an installed model lie, or of one named by its path.

    Raises CommandFailed when ``name`` is neither.
    """
    from imagedex.models.find import model_directory

    store = model_store(settings)
    directory = model_directory(name, store)
    if directory is None:
        raise CommandFailed(
            f"{name!r} is no installed model and no path of a directory with a slash; installed "
            f"are: {', '.join(store.names()) or 'none'}. Get one by: imagedex models pull NAME"
        )
    return directory


def threads_of(settings: Settings) -> int:
    """Return how many cores a model runs on, as for a worker."""
    # Containers and taskset allow fewer cores than the machine has.
    return settings.indexing.threads_per_worker or len(os.sched_getaffinity(0))
