"""Values that the documentation of the API shows."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict

JOB_ID = "idx_20251114_123456_7f3a"
IMAGE_PATH = "/photos/2025/park.jpg"
KEY_ID = "3f9a1c07be52"
MOMENT = "2025-11-14T12:34:56.789Z"


def examples_of(*examples: dict[str, Any]) -> ConfigDict:
    """Return the model configuration that shows these in the documentation."""
    return ConfigDict(json_schema_extra={"examples": list(examples)})
