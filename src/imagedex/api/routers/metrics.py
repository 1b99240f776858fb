"""Figures for Prometheus."""

from __future__ import annotations

from fastapi import APIRouter
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.responses import Response

from imagedex.access import Scope
from imagedex.api.context import ApiContext


def metrics_router(context: ApiContext) -> APIRouter:
    """Return ``/metrics``; any valid key."""
    router = context.gated_router("", "health", *Scope)

    @router.get(
        "/metrics",
        operation_id="getMetrics",
        summary="Figures for Prometheus",
        response_class=Response,
        responses={
            200: {
                "description": "Prometheus's text format.",
                "content": {"text/plain": {"schema": {"type": "string"}}},
            }
        },
    )
    async def metrics() -> Response:
        """Return the figures. Any valid key will do; a key with the scope `query` is enough.

        In Prometheus's scrape configuration:
        `authorization: {type: Bearer, credentials_file: /etc/prometheus/imagedex.key}`.
        """
        content = await context.lanes.metrics.run(generate_latest, context.metrics.registry)
        return Response(content, media_type=CONTENT_TYPE_LATEST)

    return router
