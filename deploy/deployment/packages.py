"""What a version consists of: its wheel, and the packages of the lock that it needs.

``python3 -m deployment.packages WHEEL LOCK`` installs them into the environment of a Python
that has pip.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from deployment.machine import DeploymentFailed, run

EXTRAS = "cluster,postgresql"  # What settings alone may ask a server for.

_ENTRY = re.compile(
    r"^(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(\[[^]]*\])?==(?P<version>\S+)[^\n]*(\n[ ]+[^\n]*)*",
    re.MULTILINE,
)
_OPTIONS = ("--disable-pip-version-check", "--no-input", "--quiet")


class Lock:
    """The exact versions of all packages, with the digests of their files.

    Development's are among them, so an environment gets only those that the wheel needs.
    """

    def __init__(self, text: str) -> None:
        self._entries = {_normal(found["name"]): found for found in _ENTRY.finditer(text)}

    def constraints(self) -> str:
        """Return each version as a constraint, which has no digests."""
        lines = [f"{name}=={found['version']}\n" for name, found in self._entries.items()]
        return "".join(lines)

    def requirements(self, names: Iterable[str]) -> str:
        """Return the entries of these packages with their digests.

        Raises DeploymentFailed when one of them is not in the lock.
        """
        wanted = [_normal(name) for name in names]
        if missing := [name for name in wanted if name not in self._entries]:
            raise DeploymentFailed(
                f"The lock does not hold {', '.join(missing)}: it is of another version than the "
                "wheel. Deploy from the clone that the wheel was built of."
            )
        return "".join(f"{self._entries[name][0]}\n" for name in wanted)


def install_packages(
    pip: Sequence[str | Path], wheel: Path, lock: Path, source: Sequence[str | Path] = ()
) -> None:
    """Install a wheel and what it needs, each file held against its digest in the lock.

    ``source`` are options of pip that say where packages come from. Nothing is built, since the
    code of a build runs as whoever installs.

    Raises DeploymentFailed.
    """
    locked = Lock(lock.read_text("utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        constraints, requirements, report = (
            Path(folder, name) for name in ("constraints", "requirements", "report")
        )
        constraints.write_text(locked.constraints(), "utf-8")
        install = (*pip, *_OPTIONS, "install", *source, "--only-binary", ":all:")
        run(
            *install, "--dry-run", "--ignore-installed", "--report", report,
            "--constraint", constraints, f"{wheel}[{EXTRAS}]",
        )  # fmt: skip
        found = [part["metadata"]["name"] for part in json.loads(report.read_text())["install"]]
        needed = locked.requirements(name for name in found if _normal(name) != "imagedex")
        requirements.write_text(needed, "utf-8")
        if needed:
            run(*install, "--no-deps", "--require-hashes", "--requirement", requirements)
        run(*install, "--no-deps", wheel)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    try:
        wheel, lock = (Path(argument).resolve() for argument in sys.argv[1:])
        install_packages((sys.executable, "-m", "pip"), wheel, lock)
    except DeploymentFailed as error:
        sys.exit(str(error))
