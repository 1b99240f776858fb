"""What is known of models and of their files."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from imagedex.embedding.clip.image_spec import ImageSpec
    from imagedex.embedding.clip.lock_file import LockFile


class Half(StrEnum):
    """Which files of a repository a model takes."""

    BOTH = "both"
    IMAGE = "image"  # And the configuration.
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class HubSource:
    """Where some of a model's files are published."""

    repo: str  # As owner/name.
    revision: str | None  # A commit; None when no commit was checked for this register.
    half: Half = Half.BOTH
    # SHA-256 of files that were checked for this register, by path. What the hub says of its
    # own files is checked too, for all of them.
    sha256: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    without: frozenset[str] = frozenset()  # Files that look as if they were needed, but are not.


@dataclass(frozen=True, slots=True)
class KnownImageHalf:
    """What decides the image vectors of a published model, known without its files."""

    spec: ImageSpec  # What the loader makes of its preprocessing file.
    graph: str  # Name of the image graph in float32, which holds all of its weights,
    sha256: str  # and its digest.


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A published model that can be pulled by its name."""

    name: str
    summary: str  # Why one would choose it, in a few words.
    dim: int | None  # Length of its vectors; None when only its files will tell.
    licence: str
    sources: tuple[HubSource, ...]
    image_half: KnownImageHalf | None = None  # None where its files alone would tell.


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a repository at one commit, with what it must be once it is here."""

    path: str  # Relative, with slashes; proven to stay below the directory it is put in.
    bytes: int
    sha256: str | None  # Hexadecimal; the hub knows it of large files,
    git_blob: str | None  # and of small ones the SHA-1 that git has given them.


@dataclass(frozen=True, slots=True)
class InstalledModel:
    """A model below the home, complete since it has its lock file."""

    name: str
    directory: Path
    lock: LockFile


@dataclass(frozen=True, slots=True)
class FileFault:
    """A file of a model that is not what it was when the model was installed."""

    path: str
    problem: str  # A few words, such as "is missing".
