"""What every router is handed."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import APIRouter

from imagedex.access import Scope
from imagedex.api.answers import problem_documents
from imagedex.api.interfaces import Services
from imagedex.api.lanes import Lanes
from imagedex.api.metrics import Metrics
from imagedex.api.security import Gate, gated_route


@dataclass(frozen=True)
class ApiContext:
    """The services, the threads to call them in, and the figures to count in."""

    services: Services
    lanes: Lanes
    metrics: Metrics

    def gated_router(self, prefix: str, tag: str, *scopes: Scope) -> APIRouter:
        """Return a router whose routes need a key with one of the scopes."""
        gate = Gate(self.services.keys, self.lanes.gate, *scopes)
        return APIRouter(
            prefix=prefix,
            tags=[tag],
            route_class=gated_route(gate),
            responses=problem_documents(401, 403, 422, 500, 503),
        )
