"""Which Imagedex runs here: controller and workers must be of the same one."""

from __future__ import annotations

import hashlib
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import imagedex


@dataclass(frozen=True, slots=True)
class Release:
    """What two machines must have in common to exchange chunks."""

    version: str
    digest: str  # Of the package's modules: the same version can be of other code.
    python: str  # Major and minor.
    distributed: str

    def difference(self, other: Release) -> str | None:
        """Return what sets another release apart from this one, in words; None for nothing."""
        pairs = [
            ("Imagedex", self.version, other.version),
            ("Python", self.python, other.python),
            ("distributed", self.distributed, other.distributed),
        ]
        told = [
            f"{what} {theirs} where {ours} is needed"
            for what, ours, theirs in pairs
            if ours != theirs
        ]
        if not told and self.digest != other.digest:
            told = [f"other code of Imagedex {self.version} than the controller's"]
        return " and ".join(told) or None


def own_release() -> Release:
    """Return the release that this process runs; reads all modules of the package."""
    try:
        distributed = version("distributed")
    except PackageNotFoundError:
        distributed = "none"
    return Release(
        version=imagedex.__version__,
        digest=_package_digest(Path(imagedex.__file__).parent),
        python=".".join(platform.python_version_tuple()[:2]),
        distributed=distributed,
    )


def _package_digest(package: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package).as_posix()}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:32]
