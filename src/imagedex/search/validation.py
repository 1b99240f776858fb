"""What a query may ask."""

from __future__ import annotations

from imagedex.core.errors import InvalidRequest

MAX_TEXT_CHARACTERS = 10_000
MAX_TOP_K = 1_000


def require_valid_query(text: str, top_k: int) -> None:
    """Raise InvalidRequest, naming what is wrong, unless the query can be answered."""
    if not text.strip():
        raise InvalidRequest("The query text is empty; describe the images that you look for.")
    if len(text) > MAX_TEXT_CHARACTERS:
        raise InvalidRequest(
            f"The query text has {len(text)} characters, expected at most {MAX_TEXT_CHARACTERS}; "
            "shorten it."
        )
    if "\0" in text:
        raise InvalidRequest("The query text has a NUL character; remove it.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            "The query text has half of a surrogate pair, which is no character; remove it."
        ) from error
    if not 1 <= top_k <= MAX_TOP_K:
        raise InvalidRequest(f"top_k is {top_k}, expected 1 to {MAX_TOP_K}.")
