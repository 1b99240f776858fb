"""How image files begin and end: what tells a broken-off file from a damaged one.

Only asked once decoding has failed, since a file without its last bytes often decodes well.
"""

from __future__ import annotations

_JPEG = b"\xff\xd8\xff"
_PNG = b"\x89PNG\r\n\x1a\n"
_GIF = (b"GIF87a", b"GIF89a")
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # The latter two: BigTIFF.
_BMP = b"BM"
_HEIF_BRANDS = frozenset(b"avif avis mif1 msf1 heic heix heim heis hevc hevx hevm hevs".split())


def has_signature(data: bytes) -> bool:
    """Say whether the bytes begin like one of the formats that are decoded.

    Fewer bytes than a signature count when they agree with one as far as they go.
    """
    if len(data) < 12:
        whole = (_JPEG, _PNG, *_GIF, *_TIFF, _BMP, b"RIFF")
        return any(data.startswith(one) or one.startswith(data) for one in whole) or (
            b"ftyp".startswith(data[4:8]) and len(data) > 4
        )
    return data.startswith((_JPEG, _PNG, *_GIF, *_TIFF, _BMP)) or _is_webp(data) or _is_heif(data)


def breaks_off(data: bytes) -> bool:
    """Say whether a file with a signature ends before its format says that it ends."""
    if data.startswith(_JPEG):
        return b"\xff\xd9" not in data[-4096:]  # Some cameras append bytes to the end marker.
    if data.startswith(_PNG):
        return b"IEND" not in data[-64:]
    if data.startswith(_GIF):
        return not data.rstrip(b"\0").endswith(b";")
    if _is_webp(data):
        return len(data) < 8 + int.from_bytes(data[4:8], "little")
    if data.startswith(_BMP):
        return len(data) < int.from_bytes(data[2:6], "little")
    if _is_heif(data):
        return _boxes_break_off(data)
    if data.startswith(_TIFF):
        return _tiff_breaks_off(data)
    return len(data) < 12


def _is_webp(data: bytes) -> bool:
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP"


def _is_heif(data: bytes) -> bool:
    return data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS


def _boxes_break_off(data: bytes) -> bool:
    """Say whether an outermost box lies beyond the end, or the one with the pixels is missing.

    Source: ISO/IEC 14496-12, 4.2 (boxes) and 8.1.1 (``mdat``; a small picture can lie in an
    ``idat`` inside ``meta`` instead).
    """
    start, kinds = 0, set()
    while start < len(data):
        if start + 8 > len(data):
            return True
        size = int.from_bytes(data[start : start + 4], "big")
        kinds.add(data[start + 4 : start + 8])
        if size == 1:
            size = int.from_bytes(data[start + 8 : start + 16], "big")
        elif size == 0:  # To the end of the file.
            size = len(data) - start
        if size < 8:  # No box is as short: damage.
            return False
        start += size
    return start > len(data) or (b"mdat" not in kinds and b"idat" not in data)


def _tiff_breaks_off(data: bytes) -> bool:
    """Say whether the first directory, or the pixels that it lists, lie beyond the end.

    Source: TIFF 6.0, section 2 (strips: tags 273 and 279; tiles: 324 and 325).
    """

    def number(at: int, size: int) -> int:
        return int.from_bytes(data[at : at + size], "little" if data[:2] == b"II" else "big")

    if data[2:4] in (b"+\0", b"\0+"):
        return number(8, 8) + 8 > len(data)
    directory = number(4, 4)
    count = number(directory, 2)
    if directory + 2 + 12 * count > len(data):
        return True
    runs: dict[int, list[int]] = {}
    for entry in range(directory + 2, directory + 2 + 12 * count, 12):
        tag, kind, length = number(entry, 2), number(entry + 2, 2), number(entry + 4, 4)
        if tag not in (273, 279, 324, 325):
            continue
        size = 2 if kind == 3 else 4
        at = entry + 8 if size * length <= 4 else number(entry + 8, 4)
        if at + size * length > len(data):
            return True
        runs[tag] = [number(at + index * size, size) for index in range(length)]
    starts = runs.get(273, []) + runs.get(324, [])
    lengths = runs.get(279, []) + runs.get(325, [])
    return any(start + size > len(data) for start, size in zip(starts, lengths, strict=False))
