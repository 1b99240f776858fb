"""Reading the small files of a model, which come from strangers, whole."""

from __future__ import annotations

from pathlib import Path

from imagedex.core.errors import ModelError

MAX_BYTES = 128 * 1024 * 1024
"""Four times the largest tokenizer that is known (SigLIP 2's, of 34 MB)."""


def read_small_file(path: Path, *, max_bytes: int = MAX_BYTES) -> bytes:
    """Return what is in a file. Raises OSError, and ModelError for one that is too large."""
    with path.open("rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise ModelError(
            f"The model's file {str(path)!r} has more than {max_bytes:,} bytes, which no file of "
            "its kind has; pull the model again."
        )
    return content
