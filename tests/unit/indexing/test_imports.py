"""What a worker must load before its first chunk."""

from __future__ import annotations

import subprocess
import sys

_WORK = """
import sys
import imagedex.indexing.chunk
print(sorted({"alembic", "sqlalchemy"} & set(sys.modules)))
"""


def test_a_worker_does_not_load_the_database() -> None:
    # A fifth of the time and fifteen megabytes of each worker, which has no use for it.
    done = subprocess.run([sys.executable, "-c", _WORK], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
