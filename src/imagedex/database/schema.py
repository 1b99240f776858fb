"""Bringing a database to the tables that this version knows."""

from __future__ import annotations

from sqlalchemy import Connection, inspect, text

from imagedex.core.errors import SettingsError

REVISION = "0012"  # Of the newest migration.


def upgrade(connection: Connection, where: str) -> None:
    """Create or migrate all tables of the database ``where``, inside the caller's transaction.

    Without need it changes nothing. Raises SettingsError for a database that a newer version
    has migrated.
    """
    if is_up_to_date(connection, where):
        return
    # Alembic takes a tenth of the time in which a server starts, which seldom needs it.
    from imagedex.database.migrating import migrate

    migrate(connection)


def is_up_to_date(connection: Connection, where: str) -> bool:
    """Say whether the database ``where`` has the tables of this version.

    Raises SettingsError for a database that a newer version has migrated.
    """
    present = _revision(connection)
    # Revisions are numbers of four digits.
    if present is not None and present > REVISION:
        raise SettingsError(
            f"The database {where!r} has revision {present!r}, but this version of Imagedex "
            f"knows revisions up to {REVISION!r}; run the newer version that migrated it, or "
            "restore the backup made before."
        )
    return present == REVISION


def _revision(connection: Connection) -> str | None:
    """Return the revision that Alembic has written; None for a database without tables."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.execute(
        text("SELECT version_num FROM alembic_version")
    ).scalar_one_or_none()
    return revision
