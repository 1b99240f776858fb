"""How much structure a JSON body has, counted while it arrives."""

from __future__ import annotations

from imagedex.api.problems import BODY_TOO_COMPLEX, ProblemError


class BodyShape:
    """Refuses a body with more entries or fields than its call can read, before it is parsed.

    Eight megabytes of ``[],[],`` are four million objects for Python, seconds of work in which
    the server answers nobody; counting their brackets takes milliseconds. An entry is an item of
    a list or a field of an object; an empty list or object counts once more. The grammar is left to
    the parser (RFC 8259): what is no JSON may be counted wrongly, but never as less than what
    the parser reads of it before it fails.
    """

    def __init__(self, *, max_entries: int, max_fields: int) -> None:
        self._max_entries = max_entries
        self._max_fields = max_fields
        self._entries = 0
        self._fields = 0
        self._quotes = 0
        # Where the last piece ended: in a string or not, after half an escape or not.
        self._is_in_string = False
        self._half_escape = b""

    def feed(self, piece: bytes) -> None:
        """Count the next piece of the body, cut anywhere. Raises ProblemError (422)."""
        text = (self._half_escape + piece).replace(rb"\\", b"")
        # Of a row of backslashes one is left if their number is odd; it escapes what follows.
        self._half_escape = b"\\" if text.endswith(b"\\") else b""
        text = text.removesuffix(b"\\").replace(rb"\"", b"")
        self._quotes += text.count(b'"')
        # Each text is an entry, names a field or is the whole body; without this bound, splitting
        # would be the work.
        if self._quotes > 2 * (self._max_entries + self._max_fields + 1):
            raise self._too_complex()
        parts = text.split(b'"')
        structure = b"".join(parts[1::2] if self._is_in_string else parts[::2])
        self._is_in_string ^= len(parts) % 2 == 0
        self._entries += sum(map(structure.count, (b",", b"[", b"{")))
        self._fields += structure.count(b":")
        if self._entries > self._max_entries or self._fields > self._max_fields:
            raise self._too_complex()

    def _too_complex(self) -> ProblemError:
        return ProblemError(
            BODY_TOO_COMPLEX,
            f"The body has more than {self._max_entries} entries in its lists and objects, or "
            f"more than {self._max_fields} fields, the most that this call reads; send less in "
            "one request, and only the fields that GET /docs lists for it.",
        )
