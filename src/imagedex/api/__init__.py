"""The REST API."""

from imagedex.api.application import create_api
from imagedex.api.interfaces import Services

__all__ = ["Services", "create_api"]
