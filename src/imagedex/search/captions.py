"""The file that says what test images show: a table of paths and captions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from imagedex.core.errors import InvalidRequest

HEADER = "path\tcaption"


@dataclass(frozen=True, slots=True)
class CaptionedImage:
    """One line of the table."""

    path: str  # Relative, as it stands in the file.
    caption: str


def read_captions(file: Path) -> tuple[CaptionedImage, ...]:
    """Read a table of tab-separated values, in UTF-8, with the header ``path<TAB>caption``.

    Raises InvalidRequest, which names the line, when the file is not such a table, names an
    image twice or by a path that leads out of its directory, or holds no image at all.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise InvalidRequest(f"{str(file)!r} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{str(file)!r} is not UTF-8 text: {error}.") from error
    if not lines or lines[0] != HEADER:
        raise InvalidRequest(
            f"{str(file)!r} does not begin with the header {HEADER!r} (two names, one tab)."
        )
    entries: dict[str, CaptionedImage] = {}
    for number, line in enumerate(lines[1:], start=2):
        if not line:
            continue
        entry = _parse(line, f"line {number} of {str(file)!r}")
        if entry.path in entries:
            raise InvalidRequest(
                f"{entry.path!r} stands a second time in line {number} of {str(file)!r}; "
                "give each image one caption."
            )
        entries[entry.path] = entry
    if not entries:
        raise InvalidRequest(f"{str(file)!r} names no image below its header.")
    return tuple(entries.values())


def _parse(line: str, where: str) -> CaptionedImage:
    path, tab, caption = line.partition("\t")
    if not tab or "\t" in caption or not path or not caption.strip():
        raise InvalidRequest(f"{where} is not a path, one tab and a caption: {line!r}.")
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts:
        raise InvalidRequest(
            f"{where} has {path!r}, which is not a path inside the image directory."
        )
    return CaptionedImage(path, caption)
