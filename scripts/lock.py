"""Renew ``requirements.lock`` from ``pyproject.toml``, or check offline that it is up to date.

The lock file pins every package of development with its hashes, for all supported versions of
Python. Its first lines hold a digest of the dependencies that it was made from, so that a
forgotten renewal is noticed without a network.

    python scripts/lock.py          renew (needs uv: ``pip install uv``)
    python scripts/lock.py --check  exit with 1 when it is not up to date
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
LOWEST_PYTHON = "3.11"
DIGEST_PREFIX = "# dependencies-sha256: "

# Torch is hundreds of megabytes; it may build models but must never be needed to run or test.
FORBIDDEN_PACKAGES = ("torch", "torchvision", "tensorflow")


def dependencies_digest(pyproject: Path) -> str:
    """Return the SHA-256 of everything in ``pyproject`` that decides what the lock holds."""
    document = tomllib.loads(pyproject.read_text("utf-8"))
    deciding = {
        "build": document["build-system"]["requires"],
        "python": document["project"]["requires-python"],
        "dependencies": document["project"]["dependencies"],
        "optional": document["project"].get("optional-dependencies", {}),
        "groups": document["dependency-groups"],
    }
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()


def lock_faults(text: str, digest: str) -> list[str]:
    """Return what is wrong with a lock file of this text, as sentences; empty when it is right."""
    faults = []
    if DIGEST_PREFIX + digest not in text.splitlines()[:5]:
        faults.append("It was made from other dependencies than pyproject.toml has now.")
    faults += [
        f"It names an index or a place ({line.strip()!r}); users' own pip settings must decide."
        for line in text.splitlines()
        if "://" in line or line.startswith(("--index", "--extra-index", "--find-links", "-i "))
    ]
    pinned = {line.split("==")[0] for line in text.splitlines() if "==" in line}
    faults += [f"It pins {name}." for name in FORBIDDEN_PACKAGES if name in pinned]
    return faults


def renew() -> None:
    """Resolve again and replace the lock file."""
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    if uv is None:
        sys.exit("uv is needed to renew the lock file; install it with: pip install uv")
    # One version of each package for all Pythons, so that a check that passes on one of them does
    # not fail on another because of other type stubs.
    resolved = subprocess.run(
        [
            uv, "pip", "compile", "pyproject.toml", "--group", "dev", "--upgrade", "--quiet",
            "--universal", "--fork-strategy", "fewest", "--python-version", LOWEST_PYTHON,
            "--generate-hashes", "--no-header",
        ],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout  # fmt: skip
    header = (
        "# Exact versions for development and CI. Made by `make lock`; do not edit.\n"
        f"{DIGEST_PREFIX}{dependencies_digest(ROOT / 'pyproject.toml')}\n"
    )
    LOCK.write_text(header + resolved, "utf-8")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="only say whether it is up to date")
    if not parser.parse_args().check:
        renew()
    faults = lock_faults(LOCK.read_text("utf-8"), dependencies_digest(ROOT / "pyproject.toml"))
    if faults:
        sys.exit("requirements.lock is not right; run `make lock`.\n" + "\n".join(faults))


if __name__ == "__main__":
    main()
