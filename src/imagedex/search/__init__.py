"""Answering queries: encode, search one generation, rank, page, remember."""

from imagedex.search.interfaces import QueryAnswer, Result
from imagedex.search.pictures import PictureReader
from imagedex.search.query import ImageTerm, PictureTerm, Query, Term, TextTerm
from imagedex.search.service import QueryService
from imagedex.search.services import QueryServices
from imagedex.search.verifying import BackgroundVerifier
from imagedex.search.watching import GenerationWatcher

__all__ = [
    "BackgroundVerifier",
    "GenerationWatcher",
    "ImageTerm",
    "PictureReader",
    "PictureTerm",
    "Query",
    "QueryAnswer",
    "QueryService",
    "QueryServices",
    "Result",
    "Term",
    "TextTerm",
]
