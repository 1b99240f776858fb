"""Jobs in the database."""

from imagedex.jobs._sql.store import SqlJobStore

__all__ = ["SqlJobStore"]
