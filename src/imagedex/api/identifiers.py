"""Ids in paths: whatever cannot be an id is not looked up."""

from __future__ import annotations

import re

from imagedex.core.errors import NotFound

_IDENTIFIER = re.compile(r"[A-Za-z0-9_-]{1,64}")


def require_identifier(kind: str, identifier: str) -> str:
    """Return the id unchanged; raises NotFound for what can be no id of anything.

    Control characters, NUL and endless strings so never reach a database or a log.
    """
    if not _IDENTIFIER.fullmatch(identifier):
        raise NotFound(f"There is no {kind} {identifier[:64]!r}; check the id.")
    return identifier
