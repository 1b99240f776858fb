"""What a generation holds, as its own files say it."""

from __future__ import annotations

from imagedex.segments import IndexFiles, Manifest


class LiveImages:
    """The images of an index, generation after generation; each segment is read once.

    Some hundred bytes of memory for each row.
    """

    def __init__(self, files: IndexFiles) -> None:
        self._files = files
        self._segments: dict[int, list[tuple[str, str]]] = {}  # Path and content hash, by number.

    def of(self, manifest: Manifest) -> dict[str, str]:
        """Return the content hash of each image, by path. Raises CorruptIndex, StorageError."""
        numbers = {entry.number for entry in manifest.segments}
        self._segments = {n: rows for n, rows in self._segments.items() if n in numbers}
        for entry in manifest.segments:
            if entry.number not in self._segments:
                self._segments[entry.number] = [
                    (facts.image_path, facts.content_hash)
                    for _, facts in self._files.read_facts(entry)
                ]
        gone = {
            (location.segment, location.row)
            for location in self._files.read_tombstones(manifest.tombstones)
        }
        return {
            path: content_hash
            for number, rows in self._segments.items()
            for row, (path, content_hash) in enumerate(rows)
            if (number, row) not in gone
        }
