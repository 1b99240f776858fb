"""Bringing a database to the tables that this version knows."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from imagedex.core.errors import SettingsError

_MIGRATIONS = Path(__file__).parent / "migrations"


def upgrade(connection: Connection, path: Path) -> None:
    """Create or migrate all tables of the database in ``path``, inside the caller's transaction.

    Without need it changes nothing. Raises SettingsError for a database that a newer version
    has migrated.
    """
    if is_up_to_date(connection, path):
        return
    config = _configuration()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def is_up_to_date(connection: Connection, path: Path) -> bool:
    """Say whether the database in ``path`` has the tables of this version.

    Raises SettingsError for a database that a newer version has migrated.
    """
    scripts = ScriptDirectory.from_config(_configuration())
    known = {script.revision for script in scripts.walk_revisions()}
    present = MigrationContext.configure(connection).get_current_revision()
    if present is not None and present not in known:
        raise SettingsError(
            f"The database {str(path)!r} has revision {present!r}, but this version of Imagedex "
            f"knows revisions up to {scripts.get_current_head()!r}; run the newer version that "
            "migrated it, or restore the backup made before."
        )
    return present == scripts.get_current_head()


def _configuration() -> Config:
    config = Config()
    # Alembic reads the value as a template, in which a percent sign must be doubled.
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
