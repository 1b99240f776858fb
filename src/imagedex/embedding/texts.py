"""What the text encoders share: input hygiene, and batches that need little padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

# Tokenizers cut at some tens or hundreds of tokens but read the whole text first, so that a
# megabyte of text would cost seconds. No 256 words of a real text are longer than this.
MAX_CHARACTERS = 16_384
# More at once are not faster, but their activations take more memory.
MAX_BATCH = 32


def readable(text: str) -> tuple[str, bool]:
    """Return what a tokenizer takes of ``text``, and whether that is less than all of it."""
    # Half of a surrogate pair, which JSON can carry, is no text that a tokenizer takes.
    kept = text[:MAX_CHARACTERS].encode("utf-8", "replace").decode()
    return kept, len(text) > MAX_CHARACTERS


def batches_of_like_length(lengths: Sequence[int], most: int = MAX_BATCH) -> Iterator[list[int]]:
    """Yield the positions of ``lengths`` in batches of at most ``most``, short ones first.

    A batch is padded to its longest text, so that texts of like length need the least padding.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    for start in range(0, len(order), most):
        yield order[start : start + most]
