"""Whether the server lives, and whether it can answer. Neither needs a key."""

from __future__ import annotations

from fastapi import APIRouter

from imagedex.api.answers import JsonAnswer, problem_documents
from imagedex.api.context import ApiContext
from imagedex.api.problems import NOT_READY, RETRY_AFTER_SECONDS, ProblemError
from imagedex.api.readiness import Readiness, is_ready
from imagedex.api.schemas import HealthAnswer, ReadyAnswer


def health_router(context: ApiContext) -> APIRouter:
    """Return ``/health`` and ``/health/ready``."""
    router = APIRouter(prefix="/health", tags=["health"])
    readiness = Readiness(context.services.readiness, context.lanes.checks)

    @router.get("", operation_id="getHealth", summary="Alive", response_model=HealthAnswer)
    async def health() -> JsonAnswer:
        """Answer as long as the process can answer at all."""
        return JsonAnswer(HealthAnswer())

    @router.get(
        "/ready",
        operation_id="getReadiness",
        summary="Ready to answer queries",
        response_model=ReadyAnswer,
        responses=problem_documents(503),
    )
    async def ready() -> JsonAnswer:
        """Answer 200 after a real encode and a real search, else 503 with the reasons."""
        checks = await readiness.checks()
        if not is_ready(checks):
            failing = ", ".join(sorted(name for name, result in checks.items() if result != "ok"))
            raise ProblemError(
                NOT_READY,
                f"These checks fail: {failing}; see `checks` for the reasons.",
                headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
                extensions={"checks": checks},
            )
        return JsonAnswer(ReadyAnswer(role=context.services.role, checks=checks))

    return router
