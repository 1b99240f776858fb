"""Whether a database can be used, found out without changing it."""

from __future__ import annotations

from enum import StrEnum

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
    where = database.where
    if database.is_missing():
        return DatabaseState.MISSING, f"There is no database {where!r}: jobs and keys are gone."
    try:
        with database.read() as snapshot:
            if told := database.damage(snapshot):
                return DatabaseState.DAMAGED, f"The database {where!r} is damaged: {told}."
            if not is_up_to_date(snapshot.connection, where):
                return (
                    DatabaseState.OLDER,
                    f"The database {where!r} has not the tables of this release.",
                )
    except (StorageError, DBAPIError) as error:
        return DatabaseState.DAMAGED, f"The database {where!r} is damaged: {error}"
    return DatabaseState.SOUND, f"The database {where!r} is sound."
