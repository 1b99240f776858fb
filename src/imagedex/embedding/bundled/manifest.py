"""The list of the bundled model's files, and reading them verified."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imagedex.core.errors import ModelError

ASSETS = Path(__file__).parent / "assets"
MANIFEST = "manifest.json"
_REMEDY = "Reinstall the imagedex package."


@dataclass(frozen=True)
class Asset:
    """One file as the build script wrote it."""

    file: str  # name within the assets folder
    sha256: str  # hex digest of its bytes
    size_bytes: int
    weights: bool  # whether vectors depend on it; licence texts do not count


@dataclass(frozen=True)
class AssetManifest:
    """All files of the bundled model in one folder."""

    folder: Path
    dim: int  # length of the vectors that the graphs produce
    assets: tuple[Asset, ...]

    @classmethod
    def load(cls, folder: Path = ASSETS) -> AssetManifest:
        """Read the manifest of ``folder``; the files it lists are not touched."""
        path = folder / MANIFEST
        try:
            raw: dict[str, Any] = json.loads(path.read_bytes())
            assets = tuple(
                Asset(entry["file"], entry["sha256"], entry["bytes"], entry["weights"])
                for entry in raw["files"]
            )
            return cls(folder, int(raw["dim"]), assets)
        except OSError as error:
            raise ModelError(
                f"The bundled model's manifest {path} cannot be read: {error}. {_REMEDY}"
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise ModelError(
                f"The bundled model's manifest {path} is damaged: {error!r}. {_REMEDY}"
            ) from error

    def read(self, file: str) -> bytes:
        """Return the bytes of ``file``, proven by its SHA-256 to be those that were built."""
        asset = next((asset for asset in self.assets if asset.file == file), None)
        if asset is None:
            raise ModelError(f"The bundled model's manifest does not list {file}. {_REMEDY}")
        path = self.folder / file
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ModelError(
                f"The bundled model's file {path} cannot be read: {error}. {_REMEDY}"
            ) from error
        digest = hashlib.sha256(content).hexdigest()
        if digest != asset.sha256:
            raise ModelError(
                f"The bundled model's file {path} is damaged: it has {len(content)} bytes with "
                f"SHA-256 {digest}, but {asset.size_bytes} bytes with SHA-256 {asset.sha256} "
                f"were built. {_REMEDY}"
            )
        return content

    def weights_digest(self, *salt: str) -> str:
        """Return a hex digest over ``salt`` and the listed digests of all files with weights."""
        lines = [f"{asset.file} {asset.sha256}" for asset in self.assets if asset.weights]
        return hashlib.sha256("\n".join([*salt, *sorted(lines)]).encode()).hexdigest()
