"""What is wrong with an index, in words for an operator and in words for a program."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class FindingKind(StrEnum):
    """What kind of trouble it is: one word for scripts."""

    POINTER = "pointer"  # CURRENT is missing or damaged.
    MANIFEST = "manifest"  # The manifest that counts is missing or damaged.
    PARQUET = "parquet"  # A file of vectors is missing or damaged.
    TOMBSTONES = "tombstones"  # A file of tombstones is missing or damaged.
    FAISS = "faiss"  # A search structure is missing, damaged or of another kind.
    ALIGNMENT = "alignment"  # Its vectors are not those of the Parquet file.
    DOUBLED = "doubled"  # An image is in the index twice.
    ORPHAN = "orphan"  # A file that nothing needs.
    INDEX_MISSING = "index_missing"  # The database knows of an index that is not there.
    DATABASE = "database"  # It is missing, damaged or of another release.
    CATALOG = "catalog"  # The database does not say what the index holds.


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong."""

    kind: FindingKind
    path: str | None  # The file that it is about, absolute.
    message: str  # A sentence: what is wrong.
    remedy: str  # What to do about it.


REPAIR = "imagedex doctor --repair mends it"
