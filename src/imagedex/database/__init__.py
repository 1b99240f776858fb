"""Where all durable state but the vectors lives: one database.

Only this room and the ``_sql`` modules of others know SQLAlchemy; everybody else holds a
:class:`Database` to begin transactions and passes them on.
"""

from imagedex.database.connections import Database, Snapshot, Transaction
from imagedex.database.health import DatabaseState, state_of
from imagedex.database.home import HomeLock, prepare_home
from imagedex.database.ownership import (
    RENEW_SECONDS,
    FileOwnership,
    Ownership,
    SharedOwnership,
    held,
    in_use,
)

__all__ = [
    "RENEW_SECONDS",
    "Database",
    "DatabaseState",
    "FileOwnership",
    "HomeLock",
    "Ownership",
    "SharedOwnership",
    "Snapshot",
    "Transaction",
    "held",
    "in_use",
    "prepare_home",
    "state_of",
]
