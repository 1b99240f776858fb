"""The one place that talks to Alembic."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

_MIGRATIONS = Path(__file__).parent / "migrations"


def migrate(connection: Connection, *, revision: str = "head") -> None:
    """Run the migrations that the database lacks up to one, inside the caller's transaction."""
    config = _configuration()
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def newest_revision() -> str | None:
    """Return the revision of the newest migration."""
    return ScriptDirectory.from_config(_configuration()).get_current_head()


def _configuration() -> Config:
    config = Config()
    # Alembic reads the value as a template, in which a percent sign must be doubled.
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
