"""How jobs and images are named."""

from __future__ import annotations

import hashlib
import re
import secrets
from datetime import datetime

_IMAGE_ID = re.compile(r"[0-9a-f]{20}")


def new_job_id(now: datetime) -> str:
    """Return a job id such as ``idx_20251114_123456_7f3a``.

    The suffix is random; whoever stores the id must draw again when it is already taken.
    """
    return f"idx_{now:%Y%m%d_%H%M%S}_{secrets.token_hex(2)}"


def image_id_of(image_path: str) -> str:
    """Return the id under which an image is known: 20 hex digits derived from its path alone.

    It is the same on every machine and after every rebuild, so it needs no storage of its own.
    """
    return image_digest_of(image_path).hex()


def image_digest_of(image_path: str) -> bytes:
    """Return the 10 bytes that an image's id writes out."""
    return hashlib.blake2b(image_path.encode(), digest_size=10).digest()


def is_image_id(text: str) -> bool:
    """Say whether a text has the form of an image's id."""
    return _IMAGE_ID.fullmatch(text) is not None
