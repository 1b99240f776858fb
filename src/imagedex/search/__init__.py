"""Answering queries: encode, search one generation, rank, remember."""

from imagedex.search.interfaces import QueryAnswer, Result
from imagedex.search.service import QueryService
from imagedex.search.verifying import BackgroundVerifier

__all__ = ["BackgroundVerifier", "QueryAnswer", "QueryService", "Result"]
