"""How fast workers were."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, delete, insert, select, update

from imagedex.database.tables import host_rates

_KEPT_SECONDS = 90 * 24 * 3600.0  # Of hosts and models that are gone nobody asks any more.


def stored(connection: Connection) -> dict[tuple[str, str], float]:
    """Return images per second by slot and fingerprint, in the order of their measuring."""
    rows = connection.execute(select(host_rates).order_by(host_rates.c.measured_at))
    return {(row.slot, row.fingerprint): row.images_per_second for row in rows}


def store(connection: Connection, measured: Mapping[tuple[str, str], float], now: float) -> None:
    """Put rates in the place of those that are stored, and delete old ones."""
    for (slot, fingerprint), images_per_second in measured.items():
        values = {"images_per_second": images_per_second, "measured_at": now}
        known = connection.execute(
            update(host_rates)
            .where(host_rates.c.slot == slot, host_rates.c.fingerprint == fingerprint)
            .values(**values)
        )
        if known.rowcount == 0:
            connection.execute(
                insert(host_rates).values(slot=slot, fingerprint=fingerprint, **values)
            )
    connection.execute(delete(host_rates).where(host_rates.c.measured_at < now - _KEPT_SECONDS))
