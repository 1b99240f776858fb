"""What is asked for when an old index is adopted, and what was found in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """An old index and how to read it. All paths are absolute."""

    prefix: Path  # Of ``PREFIX.parquet`` and ``PREFIX.faiss``.
    model: str  # The one that made its vectors.
    root: Path | None = None  # What its relative paths are below.
    state: Path | None = None  # The state file of the old scripts.
    path_column: str | None = None  # None: found by type and usual name.
    vector_column: str | None = None


@dataclass(frozen=True, slots=True)
class CompareOptions:
    """An old index to compare with, and how to read it. All paths are absolute."""

    prefix: Path
    root: Path | None = None
    path_column: str | None = None
    vector_column: str | None = None
    top_k: int = 10


@dataclass(frozen=True, slots=True)
class SourceStamp:
    """A file of the old index as it was when the import was asked for."""

    path: str
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class ImportRequest:
    """The request of an import job: the options, and what they stood for when it was made."""

    options: ImportOptions
    index_prefix: Path
    fingerprint: str
    dim: int
    sources: tuple[SourceStamp, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as a job keeps it."""
        options = self.options
        return {
            "index_prefix": str(self.index_prefix),
            "legacy_prefix": str(options.prefix),
            "model": options.model,
            "root": None if options.root is None else str(options.root),
            "state": None if options.state is None else str(options.state),
            "path_column": options.path_column,
            "vector_column": options.vector_column,
            "fingerprint": self.fingerprint,
            "dim": self.dim,
            "sources": [asdict(source) for source in self.sources],
        }

    @classmethod
    def from_json(cls, request: Mapping[str, Any]) -> ImportRequest:
        """Return what ``to_json`` wrote."""
        root, state = request["root"], request["state"]
        return cls(
            options=ImportOptions(
                prefix=Path(request["legacy_prefix"]),
                model=request["model"],
                root=None if root is None else Path(root),
                state=None if state is None else Path(state),
                path_column=request["path_column"],
                vector_column=request["vector_column"],
            ),
            index_prefix=Path(request["index_prefix"]),
            fingerprint=request["fingerprint"],
            dim=request["dim"],
            sources=tuple(SourceStamp(**source) for source in request["sources"]),
        )


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What an old index holds, found before anything is adopted."""

    rows: int
    images: int  # Different paths below an image root.
    duplicates: int  # Rows whose path comes again in a later row.
    unplaced: int  # Rows without a path, or with one outside every image root.
    dim: int
    path_column: str
    vector_column: str | None  # None: only the Faiss file has vectors.
    faiss: str | None  # Kind of the Faiss file; None: only the Parquet file has vectors.
    compared: int  # Rows whose vectors are in both files, and agree.
    scaled: int  # Vectors that are not of unit length, and are scaled to it.
    unusable: int  # Vectors that are zero or not finite.
    pending: int  # Images that the state file has in its queue, without a vector.
    model: str
    fingerprint: str
