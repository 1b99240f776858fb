"""``python -m soak``: many kills, with a seed that is told."""

from __future__ import annotations

import argparse
import secrets
import shutil
import sys
import tempfile
import time
from pathlib import Path

from soak.trial import SoakReport, Trial


def main() -> int:
    """Run one trial; its folder stays when it found something."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="how often the server is killed")
    parser.add_argument("--files", type=int, default=80, help="about how many pictures there are")
    parser.add_argument("--seed", type=int, help="of the choices; a random one by default")
    arguments = parser.parse_args()
    seed = secrets.randbelow(10**6) if arguments.seed is None else arguments.seed
    folder = Path(tempfile.mkdtemp(prefix="imagedex-soak-"))
    sys.stdout.write(f"Seed {seed}, in {folder}\n")
    sys.stdout.flush()
    started = time.monotonic()

    def note(report: SoakReport) -> None:
        minutes = (time.monotonic() - started) / 60
        sys.stdout.write(f"{minutes:.0f} min: {report.kills} kills, {report.checks} checks\n")
        sys.stdout.flush()

    report = Trial(folder, seed=seed, files=arguments.files).run(kills=arguments.kills, note=note)
    sys.stdout.write(f"{report}\n{time.monotonic() - started:.0f} s\n")
    if report.faults:
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
