"""Request bodies: read once, as strict JSON."""

from __future__ import annotations

from email.message import Message
from typing import Any

from pydantic_core import from_json
from starlette.requests import Request
from starlette.types import Receive, Scope

from imagedex.api.problems import INVALID_REQUEST, NOT_JSON, ProblemError


class JsonRequest(Request):
    """A request whose body must be JSON as RFC 8259 has it.

    The parser of the standard library takes NaN and lone surrogates, which neither a database
    nor an answer can hold, and fails on deep nesting with RecursionError; this one refuses
    them all as what they are, errors of the client.
    """

    def __init__(self, scope: Scope, receive: Receive) -> None:
        super().__init__(scope, receive)
        self._document: Any = None

    async def load(self) -> None:
        """Read and parse the body. Raises ProblemError (415, 422, or what the limits raise)."""
        content_type = self.headers.get("content-type", "")
        if not _is_json(content_type):
            raise ProblemError(
                NOT_JSON,
                f"The body's Content-Type is {content_type[:100]!r}; send 'application/json'.",
            )
        try:
            self._document = from_json(await self.body(), allow_inf_nan=False)
        except ValueError as error:
            raise ProblemError(INVALID_REQUEST, f"The body is not valid JSON: {error}.") from error

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
