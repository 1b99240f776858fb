"""A real PostgreSQL server, and a database of its own for each test.

The server is Debian's; as root it runs as the user ``postgres``, since it refuses root. It ends
with the process that started it, however that ends.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from psycopg import sql

from imagedex.database import Database

USER = "imagedex"
PASSWORD = "s3cret '%\u2028\\ @/:?#"
_UNTIL_READY_SECONDS = 60.0
# Nothing that a test does survives it, so that nothing needs to reach the disk.
_FORGETFUL = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")


def programs() -> Path:
    """Return the directory of the server's programs; skips the test where there is none."""
    found = [
        path
        for path in Path("/usr/lib/postgresql").glob("*/bin")
        if path.parent.name.isdigit() and (path / "initdb").exists()
    ]
    if found:
        return max(found, key=lambda path: int(path.parent.name))
    on_path = shutil.which("initdb")
    if on_path is None:
        pytest.skip("there is no PostgreSQL server here; sudo apt-get install postgresql")
    return Path(on_path).parent


class PostgresServer:
    """A server on a port of this machine, with the user ``imagedex``, who may do everything."""

    def __init__(self, *, is_durable: bool = False) -> None:
        """Make its files; ``start`` it then. A durable one loses nothing that was committed."""
        self._programs = programs()
        self._is_durable = is_durable
        # Not below pytest's directories, into which no other user gets.
        self.folder = Path(tempfile.mkdtemp(prefix="imagedex-postgres-"))
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        password_file = self.folder / "password"
        password_file.write_text(PASSWORD)
        if os.geteuid() == 0:
            for path in (self.folder, password_file):
                shutil.chown(path, "postgres", "postgres")
        self._run(
            "initdb",
            *("--pgdata", str(self.folder / "data")),
            *("--auth", "scram-sha-256", "--username", USER, "--pwfile", str(password_file)),
            *("--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync", "--no-instructions"),
        )

    def start(self) -> None:
        """Start it, and wait until it answers."""
        settings = [
            "listen_addresses=127.0.0.1",
            f"port={self.port}",
            f"unix_socket_directories={self.folder}",
            "max_connections=100",
            *(() if self._is_durable else _FORGETFUL),
        ]
        with open(self.folder.with_suffix(".log"), "ab") as log:
            self._process = subprocess.Popen(
                self._as_its_user(
                    "postgres",
                    *("-D", str(self.folder / "data")),
                    *(word for setting in settings for word in ("-c", setting)),
                ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
            )
        deadline = time.monotonic() + _UNTIL_READY_SECONDS
        while True:
            try:
                self.connect("postgres").close()
            except psycopg.OperationalError:
                log_text = self.folder.with_suffix(".log").read_text(errors="replace")
                assert self._process.poll() is None, log_text
                assert time.monotonic() < deadline, log_text
                time.sleep(0.05)
            else:
                return

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End it: fast, or at once by SIGQUIT, or as a power cut does by SIGKILL."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait()
            self._process = None

    def remove(self) -> None:
        """End it, and delete its files."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder)
        self.folder.with_suffix(".log").unlink(missing_ok=True)

    def url(self, name: str, *, password: str = PASSWORD) -> str:
        """Return the URL of a database."""
        return f"postgresql://{USER}:{quote(password, safe='')}@127.0.0.1:{self.port}/{name}"

    def connect(self, name: str) -> psycopg.Connection[Any]:
        """Connect as the user who may do everything; each statement is a transaction."""
        return psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user=USER,
            password=PASSWORD,
            dbname=name,
            autocommit=True,
            connect_timeout=5,
        )

    @contextmanager
    def new_database(self, options: str = "") -> Iterator[str]:
        """Make a database for the block; yields its URL."""
        name = f"test_{secrets.token_hex(6)}"
        with self.connect("postgres") as connection:
            connection.execute(
                sql.SQL("CREATE DATABASE {} {}").format(sql.Identifier(name), sql.SQL(options))
            )
        try:
            yield self.url(name)
        finally:
            with self.connect("postgres") as connection:
                drop = sql.SQL("DROP DATABASE {} WITH (FORCE)")
                connection.execute(drop.format(sql.Identifier(name)))

    def make_template(self) -> str:
        """Make a database with all tables, to make others from; return the options for that."""
        with self.connect("postgres") as connection:
            connection.execute("CREATE DATABASE template_of_tests")
        database = Database(self.url("template_of_tests"))
        database.upgrade()
        database.close()
        return "TEMPLATE template_of_tests"

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            self._as_its_user(program, *arguments),
            capture_output=True,
            text=True,
            cwd="/",
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def _as_its_user(self, program: str, *arguments: str) -> list[str]:
        user: tuple[str, ...] = ()
        if os.geteuid() == 0:
            user = ("--reuid", "postgres", "--regid", "postgres", "--clear-groups")
        # It ends with this process, which may be killed.
        command = ["setpriv", "--pdeathsig", "QUIT", *user]
        return [*command, str(self._programs / program), *arguments]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
