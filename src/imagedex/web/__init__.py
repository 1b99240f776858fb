"""The web page: search and watch jobs in a browser, through the REST API."""

from imagedex.web.pages import add_pages

__all__ = ["add_pages"]
