"""What narrows a search to some of the images."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class ImageFilter:
    """Which images count for a query: those that pass every test which is not None, or empty."""

    path_prefix: str | None = None  # A directory with all that lies below it, or one file.
    path_globs: tuple[str, ...] = ()  # One of them must match; see ``globs.path_pattern``.
    modified_after_ns: int | None = None  # The file's mtime: from then on,
    modified_before_ns: int | None = None  # and before then. Nanoseconds since the epoch.
    min_bytes: int | None = None  # The file's size, both bounds included.
    max_bytes: int | None = None
    min_width: int | None = None  # Pixels, as displayed; all bounds included.
    max_width: int | None = None
    min_height: int | None = None
    max_height: int | None = None
    image_ids: tuple[str, ...] | None = None  # One of these images; an empty tuple: none at all.

    def __bool__(self) -> bool:
        """Whether it leaves anything out, or may do so."""
        return any(getattr(self, field.name) not in (None, ()) for field in fields(self)) or (
            self.image_ids is not None
        )
