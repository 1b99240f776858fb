"""Whether a database can be used, found out without changing it."""

from __future__ import annotations

from enum import StrEnum

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from imagedex.core.errors import StorageError
from imagedex.database.connections import Database
from imagedex.database.schema import is_up_to_date


class DatabaseState(StrEnum):
    """What is to be expected of it."""

    SOUND = "sound"
    MISSING = "missing"  # There is no file, or one without any tables.
    OLDER = "older"  # An older release made it; the next start brings it up to date.
    DAMAGED = "damaged"  # SQLite cannot read it, or not all of it.


def state_of(database: Database) -> tuple[DatabaseState, str]:
    """Return the state of a database and a sentence about it.

    Raises SettingsError when a newer release made it, Unavailable when it stays locked.
    """
    path = str(database.path)
    if not database.path.exists() or database.path.stat().st_size == 0:
        return DatabaseState.MISSING, f"There is no database {path!r}: jobs and keys are gone."
    try:
        with database.read() as snapshot:
            rows = snapshot.connection.execute(text("PRAGMA quick_check(3)")).scalars().all()
            if rows != ["ok"]:
                told = "; ".join(str(row) for row in rows)
                return DatabaseState.DAMAGED, f"The database {path!r} is damaged: {told}."
            if not is_up_to_date(snapshot.connection, database.path):
                return (
                    DatabaseState.OLDER,
                    f"The database {path!r} has not the tables of this release.",
                )
    except (StorageError, DBAPIError) as error:
        return DatabaseState.DAMAGED, f"The database {path!r} is damaged: {error}"
    return DatabaseState.SOUND, f"The database {path!r} is sound."
