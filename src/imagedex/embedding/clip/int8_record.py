"""The record beside a float32 graph that says which files are its int8 form.

It is the one thing that is replaced when a graph is quantised again. The files it names have
names of their own each time, so that a process which reads the record gets files that belong
together, whatever another process or a crash does in between.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Any

from imagedex.core.errors import ModelError
from imagedex.embedding.clip.lock_file import LockedFile
from imagedex.embedding.clip.small_files import read_small_file

_FORMAT = 2  # The first had texts with one scale for a whole batch.
_REMEDY = "Make the graph again by: imagedex models quantize NAME --images DIR"


class QuantisationMethod(StrEnum):
    """How a float32 graph became one of 8-bit integers."""

    CALIBRATED = "calibrated"  # Fixed scales found on pictures, OpenVINO's format (.xml, .bin).
    DYNAMIC = "dynamic"  # Scales found anew for each input, run by ONNX Runtime (.onnx).


@dataclass(frozen=True, slots=True)
class AgreementRecord:
    """How near the int8 form was to float32 on pictures that it was not calibrated on."""

    images: int
    mean_cosine: float
    min_cosine: float
    top10: float | None  # Share of the ten nearest that both have; None below eleven images.


@dataclass(frozen=True, slots=True)
class Int8Record:
    """What the record says of one half of a model."""

    method: QuantisationMethod
    files: tuple[LockedFile, ...]  # The graph first; paths are relative to the record's folder.
    calibration_images: int
    versions: dict[str, str]  # Of the packages that made it.
    agreement: AgreementRecord | None = None  # None for texts, and where nothing was held out.

    @classmethod
    def read(cls, path: Path) -> Int8Record | None:
        """Return the record in ``path``, or None where there is none.

        Raises ModelError for one that cannot be read or is damaged.
        """
        try:
            content = read_small_file(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise ModelError(
                f"The record {str(path)!r} of an int8 graph cannot be read: {error}; give this "
                f"user the right to read it. {_REMEDY}"
            ) from error
        try:
            return cls._from_json(json.loads(content))
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise ModelError(
                f"The record {str(path)!r} of an int8 graph is damaged ({error!r}). {_REMEDY}"
            ) from error

    def graph(self, folder: Path) -> Path:
        """Return where the graph lies, the record being in ``folder``."""
        return folder / self.files[0].path

    def to_json(self) -> str:
        """Return the text of the file."""
        return json.dumps({"format": _FORMAT, **asdict(self)}, indent=2) + "\n"

    @classmethod
    def _from_json(cls, content: dict[str, Any]) -> Int8Record:
        if content["format"] != _FORMAT:
            raise ValueError(f"format {content['format']!r}, of another release of Imagedex")
        files = tuple(map(LockedFile.from_json, content["files"]))
        if not files:
            raise ValueError("it names no files")
        for file in files:
            _require_file_name(file.path)
        agreement = content["agreement"]
        return cls(
            method=QuantisationMethod(content["method"]),
            files=files,
            calibration_images=int(content["calibration_images"]),
            versions=dict(content["versions"]),
            agreement=None if agreement is None else AgreementRecord(**agreement),
        )


def _require_file_name(path: str) -> None:
    # A model can come from strangers, and its record must not lead to files that are not its own.
    if PurePosixPath(path).name != path or path == "..":
        raise ValueError(f"{path!r} where the name of a file in the same folder was expected")
