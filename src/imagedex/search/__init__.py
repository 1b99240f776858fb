"""Answering queries: encode, search one generation, rank, remember."""

from imagedex.search.interfaces import QueryAnswer, Result
from imagedex.search.service import QueryService
from imagedex.search.services import QueryServices

__all__ = ["QueryAnswer", "QueryService", "QueryServices", "Result"]
