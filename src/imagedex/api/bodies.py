"""Request bodies: read once, in bounds, as strict JSON."""

from __future__ import annotations

import asyncio
from email.message import Message
from typing import Any

from pydantic_core import from_json
from starlette.requests import Request
from starlette.types import Receive, Scope

from imagedex.api.body_shape import BodyShape
from imagedex.api.limits import body_too_large
from imagedex.api.problems import INVALID_REQUEST, NOT_JSON, ProblemError

# Holds the longest text and index prefix with every character escaped (``\ud83d\ude00``).
MAX_SMALL_BODY_BYTES = 256 * 1024
# Holds a hundred globs beside all fields.
MAX_SMALL_BODY_ENTRIES = 500
# A field that is not known costs an error with its own text; but for queries no request has ten.
MAX_FIELDS = 32
# The parser needs up to six milliseconds for each megabyte and holds Python's lock all the time,
# so that a thread would be no help.
_LARGE_BYTES = 512 * 1024


class JsonRequest(Request):
    """A request whose body must be JSON as RFC 8259 has it.

    The parser of the standard library takes NaN and lone surrogates, which neither a database
    nor an answer can hold, and fails on deep nesting with RecursionError; this one refuses
    them all as what they are, errors of the client.
    """

    def __init__(self, scope: Scope, receive: Receive) -> None:
        super().__init__(scope, receive)
        self._content = b""
        self._document: Any = None

    async def load(
        self, shape: BodyShape, turns: asyncio.Lock, *, max_bytes: int | None = None
    ) -> None:
        """Read and parse the body, of at most ``max_bytes`` if that is given.

        A body that is too large or too complex is refused as soon as that shows. Large ones that
        share ``turns`` are parsed one at a time, and between two of them the loop does all else
        that waits.

        Raises ProblemError (413, 415, 422, or what the limits of the server raise).
        """
        content_type = self.headers.get("content-type", "")
        if not _is_json(content_type):
            raise ProblemError(
                NOT_JSON,
                f"The body's Content-Type is {content_type[:100]!r}; send 'application/json'.",
            )
        self._content = await self._read(shape, max_bytes)
        if len(self._content) > _LARGE_BYTES:
            async with turns:
                await asyncio.sleep(0)
                self._parse()
        else:
            self._parse()

    def _parse(self) -> None:
        try:
            self._document = from_json(self._content, allow_inf_nan=False)
        except ValueError as error:
            raise ProblemError(INVALID_REQUEST, f"The body is not valid JSON: {error}.") from error

    async def _read(self, shape: BodyShape, max_bytes: int | None) -> bytes:
        content = bytearray()
        async for part in self.stream():
            content += part
            if max_bytes is not None and len(content) > max_bytes:
                raise body_too_large(max_bytes, "send less in one request.")
            shape.feed(part)
        return bytes(content)

    async def body(self) -> bytes:
        """Return the body as it was sent; FastAPI asks for it to see whether there is one."""
        return self._content

    async def json(self) -> Any:
        """Return the parsed body."""
        return self._document


def _is_json(content_type: str) -> bool:
    if content_type == "application/json":  # What nearly every client sends.
        return True
    message = Message()
    message["Content-Type"] = content_type
    subtype = message.get_content_subtype()
    return message.get_content_maintype() == "application" and (
        subtype == "json" or subtype.endswith("+json")
    )
