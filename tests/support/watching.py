"""A watcher of pulls that remembers what it was told."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class RecordingWatcher:
    """What a pull has told."""

    notes: list[str] = field(default_factory=list)
    total: int | None = None
    arrived: int = 0

    def note(self, text: str) -> None:
        self.notes.append(text)

    def begin(self, total_bytes: int) -> None:
        self.total = total_bytes

    def advance(self, count: int) -> None:
        self.arrived += count
