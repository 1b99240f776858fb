"""The database of the home across versions: a newer version's form is refused by an older one."""

from __future__ import annotations

import sys
from pathlib import Path

from deployment.machine import run

# What changes something below the home is run as the server's user, to whom whatever SQLite makes
# beside the database must belong. Root would follow where a link of that user leads.
_COPY = """
import os, sqlite3, sys
os.umask(0o077)
source, target = sys.argv[1:]
os.makedirs(os.path.dirname(target), exist_ok=True)
if os.path.exists(target + ".new"):
    os.remove(target + ".new")
old, new = sqlite3.connect(source), sqlite3.connect(target + ".new")
with new:
    old.backup(new)
old.close()
new.close()
descriptor = os.open(target + ".new", os.O_RDWR)
os.fsync(descriptor)
for name in (target + "-wal", target + "-shm"):
    if os.path.exists(name):
        os.remove(name)
os.replace(target + ".new", target)
"""
_FORGET = """
import glob, os, sys
copies, *keep = sys.argv[1:]
for copy in glob.glob(os.path.join(glob.escape(copies), "before-*.db")):
    if copy not in keep:
        os.remove(copy)
"""
_FORM = """
import sqlite3, sys
try:
    database = sqlite3.connect(sys.argv[1])
    print(database.execute("SELECT version_num FROM alembic_version").fetchone())
except sqlite3.OperationalError:
    print(None)
"""


class HomeDatabase:
    """The SQLite database below a home. Copies are made and brought back while the server rests.

    One that lies elsewhere, or is PostgreSQL's, is the operator's to keep.
    """

    def __init__(self, home: Path, user: str) -> None:
        self._path = home / "imagedex.db"
        self._copies = home / "deployments"
        self._user = user

    def keep_before(self, version: str) -> None:
        """Keep a copy from before a version got hold of the database, if there is a database."""
        if self._path.is_file():
            self._copy(self._path, self._copy_before(version))

    def is_kept_before(self, version: str) -> bool:
        """Say whether there is a copy from before a version."""
        return self._copy_before(version).is_file()

    def has_changed_form_since(self, version: str) -> bool:
        """Say whether the database has another form than before the version; False if unknown."""
        copy = self._copy_before(version)
        if not (copy.is_file() and self._path.is_file()):
            return False
        return self._form_of(copy) != self._form_of(self._path)

    def restore_before(self, version: str) -> None:
        """Bring back the copy from before a version."""
        self._copy(self._copy_before(version), self._path)

    def forget_others(self, versions: list[str]) -> None:
        """Remove the copies of all versions but these."""
        keep = [self._copy_before(version) for version in versions]
        run(sys.executable, "-c", _FORGET, self._copies, *keep, user=self._user)

    def _copy_before(self, version: str) -> Path:
        return self._copies / f"before-{version}.db"

    def _copy(self, source: Path, target: Path) -> None:
        run(sys.executable, "-c", _COPY, source, target, user=self._user)

    def _form_of(self, path: Path) -> str:
        return run(sys.executable, "-c", _FORM, path, user=self._user)
