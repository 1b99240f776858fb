"""The ``Idempotency-Key`` header: repeat a request without repeating its effect.

Source: https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/
"""

from __future__ import annotations

import hashlib
from typing import Annotated

from fastapi import Header
from pydantic import BaseModel

from imagedex.access import Principal
from imagedex.jobs.interfaces import IdempotencyKey

# Visible ASCII, as HTTP allows it in a field value; the draft's quotes are part of the key.
IdempotencyHeader = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[!-~]([ -~]*[!-~])?$",
        description="Requests with equal keys within 24 h are one request.",
    ),
]


def idempotency_of(
    header: str | None, principal: Principal, operation: str, request: BaseModel
) -> IdempotencyKey | None:
    """Return the promise that the header makes, or None without one.

    The hash covers the operation and the request with its defaults filled in, so that
    spelling a default out, or another order of the fields, is not another request.
    """
    if header is None:
        return None
    content = f"{operation}\n{request.model_dump_json()}"
    return IdempotencyKey(
        client=principal.key_id,
        key=header,
        request_hash=hashlib.sha256(content.encode()).hexdigest(),
    )
