"""Processes that repair a home until they are killed."""

from __future__ import annotations

import os
import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path

from imagedex.app import Surgery
from imagedex.settings import Settings
from support.committing import FileTrap


def surgery_of(home: Path) -> Surgery:
    """Return a doctor of a home's default index."""
    return Surgery(Settings.model_validate({"home": home}), None)


def die_in_repair(home: Path, number: int, _reports: Connection) -> None:
    """Repair, killed before the n-th change of the home's files, unless it ends before."""
    surgery = surgery_of(home)
    trap = FileTrap(home, only_changes=True)
    sys.addaudithook(trap.watch)
    trap.arm(number, lambda: os.kill(os.getpid(), signal.SIGKILL))
    surgery.repair()
