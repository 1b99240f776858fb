"""What a run of benchmarks leaves: a table on the terminal and a JSON document."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from bench.figures import Figure


def document(figures: Sequence[Figure]) -> dict[str, Any]:
    """Return the figures with when and where they were taken."""
    return {
        "taken_at": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "machine": {
            "processor": _processor(),
            "cores": len(os.sched_getaffinity(0)),
            "memory_gigabytes": round(psutil.virtual_memory().total / 2**30),
            "python": platform.python_version(),
        },
        "figures": [asdict(figure) for figure in figures],
    }


def print_table(figures: Sequence[Figure]) -> None:
    """Print the figures beside what was promised."""
    table = Table("figure", "measured", "unit", "promised", "met")
    for figure in figures:
        met = "yes" if figure.is_met else "NO"
        table.add_row(figure.name, f"{figure.value:g}", figure.unit, figure.promised, met)
    Console().print(table)


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), "unknown")
