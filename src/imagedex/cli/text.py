"""Text that others chose (file names, server messages), made harmless for a terminal."""

from __future__ import annotations

import unicodedata

# Control characters move the cursor or colour the screen, format characters (bidirectional
# overrides, zero-width signs) make text look like other text, surrogates cannot be encoded,
# and line separators break a table. See https://trojansource.codes/trojan-source.pdf.
_ESCAPED_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def printable(text: str) -> str:
    r"""Return ``text`` on one line, with whatever a terminal could obey escaped as ``\x1b``."""
    if text.isprintable():
        return text
    return "".join(_escaped(character) for character in text)


def _escaped(character: str) -> str:
    if unicodedata.category(character) not in _ESCAPED_CATEGORIES:
        return character
    return character.encode("unicode_escape").decode("ascii")


def count_of(number: int, noun: str) -> str:
    """Return ``1 image`` or ``1,200 images``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def duration(seconds: float) -> str:
    """Return ``4.2 s``, ``3 min 20 s`` or ``2 h 5 min``."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def byte_size(size: int) -> str:
    """Return ``512 B``, ``1.5 KB`` or ``2.0 GB``, in powers of 1,000."""
    value = float(size)
    for unit in ("B", "KB", "MB", "GB"):
        if value < 1000:
            return f"{size} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
