"""Who may call what: keys in headers, scopes on routes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from imagedex.access import KeyService, Principal, Scope
from imagedex.api.bodies import JsonRequest
from imagedex.api.body_shape import BodyShape
from imagedex.api.lanes import Lane
from imagedex.api.problems import INVALID_REQUEST, PROBLEM_OF_ERROR, ProblemError
from imagedex.core.errors import AuthenticationFailed, PermissionDenied

API_KEY_HEADER = "X-API-Key"

# As with the fields of a body, each parameter that is not known costs an error.
MAX_PARAMETERS = 32

SECURITY_SCHEMES: dict[str, Any] = {
    "apiKey": {
        "type": "apiKey",
        "in": "header",
        "name": API_KEY_HEADER,
        "description": "A key made by `imagedex keys create`.",
    },
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "The same key as a bearer token (RFC 6750).",
    },
}


class Gate:
    """Lets requests through that carry a valid key with one of the scopes."""

    def __init__(self, keys: KeyService, lane: Lane, *scopes: Scope) -> None:
        self._keys = keys
        self._lane = lane
        self.scopes = frozenset(scopes)

    async def admit(self, request: Request) -> Principal:
        """Return the caller, and remember it for :func:`principal_of` and the access log.

        Raises AuthenticationFailed without a valid key, ProblemError (403) without the scope.
        """
        secret = _secret_of(request)
        principal = self._keys.remembered(secret)
        if principal is None:
            principal = await self._lane.run(self._keys.authenticate, secret)
        request.scope.setdefault("state", {})["principal"] = principal
        if not any(principal.may(scope) for scope in self.scopes):
            names = " or ".join(sorted(self.scopes))
            raise ProblemError(
                PROBLEM_OF_ERROR[PermissionDenied],
                f"The key {principal.key_id!r} lacks the scope {names}; use a key that has it.",
                # RFC 6750, section 3.1.
                headers={
                    "WWW-Authenticate": 'Bearer realm="imagedex", error="insufficient_scope", '
                    f'scope="{" ".join(sorted(self.scopes))}"'
                },
            )
        return principal


def principal_of(request: Request) -> Principal:
    """Return who calls; only for routes behind a gate."""
    principal: Principal = request.scope["state"]["principal"]
    return principal


def gated_route(gate: Gate) -> type[APIRoute]:
    """Return a class of routes that ask for a key first and read the body after.

    FastAPI reads and parses the body before it runs dependencies. As a dependency the gate
    would let a stranger make the server parse megabytes of JSON, and would tell him of errors in
    it; as part of the route it comes before both.
    """

    turns = asyncio.Lock()

    class GatedRoute(APIRoute):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs["openapi_extra"] = {
                **(kwargs.get("openapi_extra") or {}),
                # OpenAPI 3.1 lets roles be listed for schemes other than OAuth2 too.
                "security": [
                    {name: [scope]} for scope in sorted(gate.scopes) for name in SECURITY_SCHEMES
                ],
            }
            super().__init__(*args, **kwargs)

        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()
            body: Any = self.body_field and self.body_field.field_info.annotation

            async def handle_behind_gate(request: Request) -> Response:
                await gate.admit(request)
                _require_few_parameters(request)
                if body is not None:
                    request = JsonRequest(request.scope, request.receive)
                    shape = BodyShape(max_entries=body.max_entries, max_fields=body.max_fields)
                    await request.load(shape, turns, max_bytes=body.max_body_bytes)
                return await handle(request)

            return handle_behind_gate

    return GatedRoute


def _require_few_parameters(request: Request) -> None:
    count = request.scope.get("query_string", b"").count(b"&") + 1
    if count > MAX_PARAMETERS:
        raise ProblemError(
            INVALID_REQUEST,
            f"The query has {count} parameters and at most {MAX_PARAMETERS} are read; "
            "send only those that GET /docs lists for this call.",
        )


def _secret_of(request: Request) -> str:
    """Return the key that was sent; ``X-API-Key`` counts before ``Authorization``."""
    secret = request.headers.get(API_KEY_HEADER)
    if secret is None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        secret = token.strip() if scheme.lower() == "bearer" else ""
    if not secret:
        raise AuthenticationFailed(
            f"The request has no API key; send it as '{API_KEY_HEADER}: KEY' or "
            "'Authorization: Bearer KEY'."
        )
    return secret
