"""When schedules are due."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection, insert, select, update

from imagedex.database.tables import schedules


def due_at(connection: Connection, name: str, times: str) -> float | None:
    """Return when a schedule of these times is due, None while that is not known."""
    row = connection.execute(select(schedules).where(schedules.c.name == name)).one_or_none()
    return None if row is None or row.times != times else float(row.due_at)


def advance(
    connection: Connection,
    name: str,
    times: str,
    next_after: Callable[[float], float],
    *,
    now: float,
) -> tuple[bool, float]:
    """Return whether a schedule is due, which it is no more then, and when it is due next.

    One that is new, or has other times than before, begins from now.
    """
    known = due_at(connection, name, times)
    if known is not None and known > now:
        return False, known
    following = next_after(now)
    values = {"times": times, "due_at": following}
    changed = connection.execute(
        update(schedules).where(schedules.c.name == name).values(values)
    ).rowcount
    if not changed:
        connection.execute(insert(schedules).values(name=name, **values))
    return known is not None, following
