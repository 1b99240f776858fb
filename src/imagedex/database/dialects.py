"""Where one statement does not do for all kinds of databases."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from sqlalchemy import Connection, Table, Text, insert, text

# Order by bytes, as SQLite has it, whatever language a PostgreSQL database was made for: what lies
# below a directory, and the next page of a list, are ranges of it.
TEXT = Text().with_variant(Text(collation="C"), "postgresql")

DriverStatement: TypeAlias = Mapping[str, str]
_JSON_ARRAY = re.compile(r"json_array\((\w+)\)")


def only(condition: str) -> dict[str, Any]:
    """Return the options that make an index one of some rows."""
    return {f"{dialect}_where": text(condition) for dialect in ("sqlite", "postgresql")}


def for_drivers(statement: str) -> DriverStatement:
    """Return a statement as each driver takes it.

    It has ``?`` for each parameter, and ``json_array(column)`` for the JSON text of a column's
    values in the order of the rows.
    """
    return {
        "sqlite": _JSON_ARRAY.sub(r"json_group_array(\1)", statement),
        "postgresql": _JSON_ARRAY.sub(r"coalesce(json_agg(\1)::text, '[]')", statement).replace(
            "?", "%s"
        ),
    }


def insert_many(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows, all of the same columns; what has a default may be left out."""
    if not rows:
        return
    if connection.dialect.name != "postgresql":
        connection.execute(insert(table), rows)
        return
    # A statement for each row takes several times as long.
    columns = ", ".join(rows[0])
    driver: Any = connection.connection.driver_connection
    with (
        driver.cursor() as cursor,
        cursor.copy(f"COPY {table.name} ({columns}) FROM STDIN") as copy,
    ):
        for row in rows:
            copy.write_row(row.values())


def one_row(connection: Connection, statement: DriverStatement, values: Sequence[Any]) -> Any:
    """Return the first row of what a statement finds, as a tuple; None where it finds none.

    Straight to the driver, since SQLAlchemy takes as long again for a short statement.
    """
    driver: Any = connection.connection.driver_connection
    return driver.execute(statement[connection.dialect.name], values).fetchone()
