"""The database and the home when processes die, meet, or run out of disk."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from imagedex.core.errors import HomeInUse
from imagedex.database import Database, HomeLock
from support.children import child, read_line, remaining_numbers, run_together

_WRITE_PAIRS = """
    import sys
    from sqlalchemy import text
    from imagedex.database import Database

    database = Database(sys.argv[1])
    number = int(sys.argv[2])
    while True:
        number += 1
        with database.transaction() as transaction:
            values = {"n": number, "t": "x" * 5000}
            transaction.connection.execute(text("INSERT INTO one VALUES (:n, :t)"), values)
            transaction.connection.execute(text("INSERT INTO two VALUES (:n)"), values)
        print(number)
"""


def test_killed_writers_lose_no_commit_and_leave_no_half(empty_url: str) -> None:
    database = Database(empty_url)
    with database.transaction() as transaction:
        execute = transaction.connection.exec_driver_sql
        execute("CREATE TABLE one (n INTEGER PRIMARY KEY, t TEXT)")
        execute("CREATE TABLE two (n INTEGER PRIMARY KEY)")
    newest = 0
    for round_ in range(4):
        with child(_WRITE_PAIRS, empty_url, newest) as process:
            for _ in range(5 + round_ * 7):
                acknowledged = int(read_line(process))
            process.send_signal(signal.SIGKILL)
            acknowledged = max([acknowledged, *remaining_numbers(process)])
        with database.transaction() as transaction:
            execute = transaction.connection.exec_driver_sql
            ones = execute("SELECT n FROM one ORDER BY n").scalars().all()
            twos = execute("SELECT n FROM two ORDER BY n").scalars().all()
            if not database.is_shared:
                assert execute("PRAGMA integrity_check").scalar_one() == "ok"
        assert ones == twos == list(range(1, len(ones) + 1))
        # The last commit may have been done but not told; none that was told is missing.
        assert acknowledged <= len(ones) <= acknowledged + 1
        newest = len(ones)
    database.close()


_UPGRADE = """
    import sys
    from imagedex.database import Database

    print("ready")
    sys.stdin.readline()
    database = Database(sys.argv[1])
    database.upgrade()
    with database.read() as snapshot:
        query = "SELECT count(*) FROM jobs"
        print(snapshot.connection.exec_driver_sql(query).scalar_one())
"""


def test_several_processes_create_a_database_at_once(empty_url: str) -> None:
    assert run_together(_UPGRADE, [(empty_url,)] * 4) == [["0"]] * 4


_FILL_DISK = """
    import resource, sys
    from imagedex.core.errors import StorageError
    from imagedex.database import Database

    database = Database(f"sqlite:///{sys.argv[1]}")
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
    stored = 0
    try:
        while True:
            with database.transaction() as transaction:
                for half in range(2):
                    transaction.connection.exec_driver_sql(
                        "INSERT INTO word VALUES (?, ?)", (2 * stored + half, "x" * 9000)
                    )
            stored += 1
    except StorageError as error:
        print(error)
    with database.read() as snapshot:
        query = "SELECT count(*) FROM word"
        assert snapshot.connection.exec_driver_sql(query).scalar_one() == 2 * stored
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    with database.transaction() as transaction:
        transaction.connection.exec_driver_sql("INSERT INTO word VALUES (-1, '')")
    print(stored)
"""


def test_a_full_disk_is_told_and_passes(tmp_path: Path) -> None:
    path = tmp_path / "imagedex.db"
    database = Database(f"sqlite:///{path}")
    with database.transaction() as transaction:
        transaction.connection.exec_driver_sql("CREATE TABLE word (n INTEGER PRIMARY KEY, t TEXT)")
    with child(_FILL_DISK, path) as process:
        message = read_line(process)
        stored = int(read_line(process))
        assert process.wait() == 0
    assert "free" in message
    assert str(path) in message
    assert stored > 0
    with database.read() as snapshot:
        query = "SELECT count(*) FROM word"
        assert snapshot.connection.exec_driver_sql(query).scalar_one() == 2 * stored + 1
    database.close()


_HOLD_HOME = """
    import os, sys, time
    from pathlib import Path
    from imagedex.database import HomeLock

    lock = HomeLock(Path(sys.argv[1]))
    lock.acquire()
    if os.fork() == 0:
        # A child without exec, which outlives its parent.
        print(os.getpid())
        time.sleep(600)
        os._exit(0)
    time.sleep(600)
"""


def test_a_killed_holder_gives_up_the_home_although_its_child_lives(tmp_path: Path) -> None:
    with child(_HOLD_HOME, tmp_path) as process:
        orphan = int(read_line(process))
        try:
            process.kill()
            process.wait()
            os.kill(orphan, 0)
            with HomeLock(tmp_path):
                pass
        finally:
            os.kill(orphan, signal.SIGKILL)


_LOCK_WITHOUT_ROOM = """
    import resource, sys
    from pathlib import Path
    from imagedex.database import HomeLock

    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    lock = HomeLock(Path(sys.argv[1]))
    lock.acquire()
    print("locked")
    sys.stdin.readline()
"""


def test_a_home_without_room_for_its_holders_name_is_locked_all_the_same(tmp_path: Path) -> None:
    with child(_LOCK_WITHOUT_ROOM, tmp_path) as process:
        assert read_line(process) == "locked"
        with pytest.raises(HomeInUse, match="in use by another process"):
            HomeLock(tmp_path).acquire()


_TRY_HOME = """
    import sys
    from pathlib import Path
    from imagedex.core.errors import HomeInUse
    from imagedex.database import HomeLock

    try:
        HomeLock(Path(sys.argv[1])).acquire()
    except HomeInUse as error:
        print(error)
"""


def test_a_second_process_is_told_who_has_the_home(tmp_path: Path) -> None:
    with HomeLock(tmp_path), child(_TRY_HOME, tmp_path) as process:
        assert f"is in use by process {os.getpid()} since" in read_line(process)
