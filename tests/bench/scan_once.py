"""One scan and its plan in a process of its own: ``python -m bench.scan_once DATABASE TOP``.

Prints seconds, peak resident megabytes, and the number of unchanged files.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from imagedex.catalog import SqlCatalog
from imagedex.core.images import ImageFacts, RowLocation
from imagedex.database import Database
from imagedex.indexing.planning import plan_scan
from imagedex.ingest import ImageRoots, ScannedFile, scan

_PREFIX = Path("/index")


def fill_catalog(database_file: Path, top: Path) -> None:
    """Let the catalog say what lies below a directory."""
    database = Database(f"sqlite:///{database_file}")
    database.upgrade()
    catalog = SqlCatalog(database)
    index_id = catalog.ensure_index(_PREFIX).index_id
    found = (f for f in scan(ImageRoots([top]), str(top)) if isinstance(f, ScannedFile))
    rows = (
        (RowLocation(1, row), ImageFacts(f.image_path, f"{row:064x}", f.stamp, 8, 8, "JPEG"))
        for row, f in enumerate(found)
    )
    with database.transaction() as transaction:
        catalog.record_generation(transaction, index_id, generation=1, indexed=rows)
    database.close()


def main() -> None:
    """Scan and plan, and tell what it took."""
    database = Database(f"sqlite:///{sys.argv[1]}")
    catalog = SqlCatalog(database)
    index_id = catalog.ensure_index(_PREFIX).index_id
    top = sys.argv[2]
    started = time.perf_counter()
    plan = plan_scan(scan(ImageRoots([top]), top), catalog, index_id, top, force=False)
    seconds = time.perf_counter() - started
    assert not plan.missing
    assert not plan.embed
    sys.stdout.write(f"{seconds:.3f} {_peak_megabytes():.1f} {plan.unchanged}\n")
    database.close()


def _peak_megabytes() -> float:
    """Return the most that this process had resident.

    Not from getrusage, which tells of the process that it was started by where that had more.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    kibibytes = next(line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return int(kibibytes) * 1024 / 1e6


if __name__ == "__main__":
    main()
