"""Whether an installed model's files are still what they were when it was installed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from imagedex.embedding.clip.files import find_model_files
from imagedex.embedding.clip.lock_file import LockedFile
from imagedex.embedding.runtimes import Part, Precision
from imagedex.models.disk import file_digests
from imagedex.models.records import FileFault, InstalledModel


def file_faults(model: InstalledModel) -> Iterator[FileFault]:
    """Read all of a model's files and yield those that are not what its lock file says.

    Files that the lock file does not name are none of its business: precisions that were made
    later lie there too. Raises StorageError when a file cannot be read.
    """
    yield from _faults(model.lock.files, model.directory, model.directory)


def int8_faults(model: InstalledModel) -> Iterator[FileFault]:
    """Do the same for the model's int8 form, by its records; where it was not made, nothing.

    Raises StorageError, and ModelError for a damaged record.
    """
    files = find_model_files(model.directory)
    parts: tuple[Part, ...] = ("image", "text")
    for part in parts:
        record = files.int8_record(part)
        if record is not None:
            folder = files.graph(part, Precision.FP32).parent
            yield from _faults(record.files, folder, model.directory)


def _faults(files: Iterable[LockedFile], folder: Path, directory: Path) -> Iterator[FileFault]:
    """Yield the faults of files that lie in ``folder``, with their paths within ``directory``."""
    for file in files:
        path = folder / file.path
        problem = _problem(file, path)
        if problem is not None:
            yield FileFault(path.relative_to(directory).as_posix(), problem)


def _problem(file: LockedFile, path: Path) -> str | None:
    if not path.is_file():
        return "is missing"
    if path.stat().st_size != file.bytes:
        return f"has {path.stat().st_size:,} bytes instead of {file.bytes:,}"
    if file_digests(path).sha256 != file.sha256:
        return "has the right size but other content"
    return None
