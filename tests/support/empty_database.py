"""Databases for tests that are about something else."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

from imagedex.database import Database


def database_in(file: Path) -> Database:
    """Return a database with all tables, without migrating each new file anew."""
    if not file.exists():
        file.write_bytes(_empty_database())
        file.chmod(0o600)
    database = Database(f"sqlite:///{file}")
    database.upgrade()  # Finds nothing to do in a new one.
    return database


@cache
def _empty_database() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "imagedex.db"
        database = Database(f"sqlite:///{file}")
        database.upgrade()
        database.close()
        return file.read_bytes()
