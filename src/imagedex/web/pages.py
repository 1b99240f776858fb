"""Serve the page and the files that it is made of.

The page is static. Everything that it shows it asks of the REST API, with the key that the reader
typed in, so it has no rights and no state of its own.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files

from fastapi import FastAPI, Request, Response

MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

# The page runs its own files alone: names of images and texts of errors come from strangers, and
# nothing in them can become code. Thumbnails are fetched with the key and shown as blobs.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)


@dataclass(frozen=True, slots=True)
class Asset:
    """A file of the page, read once at start."""

    content: bytes
    media_type: str
    etag: str  # Quoted, as in the header.

    def respond(self, request: Request) -> Response:
        """Return the file, or 304 when the browser has this very version."""
        headers = {
            "ETag": self.etag,
            # The browser asks each time, so that a new release never runs with old files.
            "Cache-Control": "no-cache",
            "Content-Security-Policy": CONTENT_SECURITY_POLICY,
            "Cross-Origin-Opener-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }
        if self.etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(self.content, media_type=self.media_type, headers=headers)


def add_pages(api: FastAPI) -> None:
    """Add ``GET /`` and the files that it loads to ``api``; they need no key."""
    assets = _load_assets()

    async def page(request: Request) -> Response:
        return assets["index.html"].respond(request)

    def add_file(name: str) -> None:
        async def file(request: Request) -> Response:
            return assets[name].respond(request)

        api.add_api_route(f"/web/{name}", file, methods=["GET"], include_in_schema=False)

    api.add_api_route("/", page, methods=["GET"], include_in_schema=False)
    for name in assets:
        add_file(name)


def _load_assets() -> dict[str, Asset]:
    """Read the static files of the package, by name."""
    assets = {}
    for file in sorted(files("imagedex.web").joinpath("static").iterdir(), key=lambda f: f.name):
        suffix = "." + file.name.rpartition(".")[2]
        content = file.read_bytes()
        etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        assets[file.name] = Asset(content, MEDIA_TYPES[suffix], etag)
    return assets
