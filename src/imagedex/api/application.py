"""The REST API over the services of an application."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from imagedex import __version__
from imagedex.api.context import ApiContext
from imagedex.api.documentation import add_documentation
from imagedex.api.interfaces import Services
from imagedex.api.lanes import Lanes
from imagedex.api.limits import BodyLimits
from imagedex.api.metrics import Metrics
from imagedex.api.observation import Observation
from imagedex.api.problems import (
    ProblemError,
    answer_http_exception,
    answer_imagedex_error,
    answer_problem_error,
)
from imagedex.api.routers.health import health_router
from imagedex.api.routers.images import images_router
from imagedex.api.routers.index import index_router
from imagedex.api.routers.keys import keys_router
from imagedex.api.routers.metrics import metrics_router
from imagedex.api.routers.model import model_router
from imagedex.api.routers.query import query_router
from imagedex.api.routers.snapshots import snapshots_router
from imagedex.api.routers.stats import stats_router
from imagedex.api.validation import answer_validation_error
from imagedex.core.errors import ImagedexError

DESCRIPTION = (
    "Index photos and find them by describing them. Keys go into the header X-API-Key, or "
    "Authorization: Bearer. Errors are application/problem+json (RFC 9457). Times are UTC, "
    "ISO 8601 with Z."
)


def create_api(application: Services, *, max_body_seconds: float = 60.0) -> FastAPI:
    """Return the API as an ASGI application.

    It neither starts nor closes the application; whoever serves it does. It must run on
    asyncio. There is no CORS: pages of other origins cannot read its answers.

    Parameters
    ----------
    max_body_seconds
        How long a request body may take to arrive.
    """
    metrics = Metrics(application.indexing, is_leader=lambda: application.role == "leader")
    context = ApiContext(application, Lanes.open(), metrics)
    routers = [
        query_router(context),
        index_router(context),
        model_router(context),
        stats_router(context),
        images_router(context),
        snapshots_router(context),
        keys_router(context),
        health_router(context),
        metrics_router(context),
    ]
    api = FastAPI(
        title="Imagedex",
        version=__version__,
        description=DESCRIPTION,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        # Handed over as they are: an included router builds each route a second time, and is
        # one more table to search for each request.
        routes=[route for router in routers for route in router.routes],
        openapi_url=None,  # The documentation brings its own routes.
        docs_url=None,
        redoc_url=None,
        # A redirect would repeat the Host header, which the client chooses.
        redirect_slashes=False,
        middleware=[
            Middleware(Observation, metrics=metrics),
            Middleware(
                BodyLimits,
                max_bytes=application.settings.server.max_body_bytes,
                max_seconds=max_body_seconds,
            ),
        ],
        exception_handlers={
            ImagedexError: answer_imagedex_error,
            ProblemError: answer_problem_error,
            RequestValidationError: answer_validation_error,
            HTTPException: answer_http_exception,
        },
    )
    add_documentation(api)
    return api
