"""The secret half of a key: how it is made, taken apart and hashed.

A secret looks like ``imgdx_<key_id>_<random>``. The id in it finds the row to compare with; the
prefix lets secret scanners recognise a leaked key. The random part is 256 bits from the
operating system, so nobody can search the space of secrets, and one round of SHA-256 is enough:
slow, salted hashes exist for passwords that people choose, and would cost each request
milliseconds. See OWASP's Password Storage Cheat Sheet, and RFC 6749 section 10.10 for the
entropy that makes guessing hopeless.
"""

from __future__ import annotations

import hashlib
import re
import secrets

_SECRET = re.compile(r"imgdx_([0-9a-f]{12})_[A-Za-z0-9_-]{43}")


def new_key_id() -> str:
    """Return a random id: 12 hexadecimal digits. It is no secret."""
    return secrets.token_hex(6)


def new_secret(key_id: str) -> str:
    """Return a new secret for this key: 43 base64url characters of it hold 256 random bits."""
    return f"imgdx_{key_id}_{secrets.token_urlsafe(32)}"


def key_id_of(secret: str) -> str | None:
    """Return the key id that a secret names, or None when it does not look like one."""
    match = _SECRET.fullmatch(secret)
    return match[1] if match else None


def hash_secret(secret: str) -> str:
    """Return the SHA-256 of a secret, hexadecimal. Any string is accepted."""
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()
