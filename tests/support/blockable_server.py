"""``imagedex serve`` with a route that blocks the event loop; run as a module.

``GET /block?until=FILE`` holds the loop until the file is there.
"""

from __future__ import annotations

import time
from pathlib import Path

from fastapi import FastAPI

from imagedex.cli import main, server
from imagedex.web import add_pages


def _add_pages_and_route(api: FastAPI) -> None:
    add_pages(api)

    @api.get("/block")
    async def block(until: Path) -> None:
        while not until.exists():
            time.sleep(0.01)


if __name__ == "__main__":
    vars(server)["add_pages"] = _add_pages_and_route
    main()
