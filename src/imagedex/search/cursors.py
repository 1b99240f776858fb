"""Where the next page of a query begins, as a text that clients hand back."""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from dataclasses import dataclass
from pathlib import Path

from imagedex.core.errors import InvalidRequest
from imagedex.search.query import Query
from imagedex.search.ranking import MAX_DEPTH
from imagedex.segments import Manifest

_LAYOUT = struct.Struct(">BQH13s")
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in the results of one query to one generation.

    It holds nothing secret, and whoever makes one up gets what he could ask for as well.
    """

    generation: int
    offset: int  # Results before it.
    digest: bytes  # Of the query and of the generation.

    @classmethod
    def after(cls, offset: int, query: Query, index_prefix: Path, manifest: Manifest) -> Cursor:
        """Return the place after so many results."""
        return cls(manifest.generation, offset, _digest(query, index_prefix, manifest))

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Return what a client handed back. Raises InvalidRequest."""
        try:
            data = base64.b64decode(text.encode("ascii"), altchars=b"-_", validate=True)
            version, generation, offset, digest = _LAYOUT.unpack(data)
        except (ValueError, binascii.Error, struct.error) as error:
            raise _not_of_this_query() from error
        if version != _VERSION or not 0 < offset < MAX_DEPTH:
            raise _not_of_this_query()
        return cls(generation, offset, digest)

    def require_of(self, query: Query, index_prefix: Path, manifest: Manifest) -> None:
        """Raise InvalidRequest unless it is of this query to this generation."""
        if self.digest != _digest(query, index_prefix, manifest):
            raise _not_of_this_query()

    def __str__(self) -> str:
        packed = _LAYOUT.pack(_VERSION, self.generation, self.offset, self.digest)
        return base64.urlsafe_b64encode(packed).decode()


def _digest(query: Query, index_prefix: Path, manifest: Manifest) -> bytes:
    # A prefix can get a new index, which counts from 1 again.
    told = repr((query, str(index_prefix), manifest.created_at.isoformat()))
    return hashlib.blake2b(told.encode(), digest_size=13).digest()


def _not_of_this_query() -> InvalidRequest:
    return InvalidRequest(
        "The cursor is not one of this query; send the very request whose answer had it as "
        "next_cursor, or none for the first page."
    )
