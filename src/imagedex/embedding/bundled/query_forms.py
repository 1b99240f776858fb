"""The forms in which a text is encoded."""

from __future__ import annotations

import re

# Part of the model's identity: raise it with every change of what ``query_forms`` returns.
QUERY_FORMS_VERSION = "forms-1"
_ARTICLE = re.compile(r"(?:an?|the|some)\s+", re.IGNORECASE)
_CLOSING = " \t\r\n.!?"


def query_forms(text: str) -> list[str]:
    """Return ``text`` and, where it differs, the same without its frame.

    The frame is a leading article and closing punctuation. Class names stand without either,
    and for a short text ("A cat.") they are half of its tokens.
    """
    trimmed = text.strip()
    bare = _ARTICLE.sub("", trimmed, count=1) if _ARTICLE.match(trimmed) else trimmed
    bare = bare.rstrip(_CLOSING)
    return [text, bare] if bare and bare != trimmed else [text]
