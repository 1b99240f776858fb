"""Show Imagedex at work: fetch sample photos, serve, index, search, write a contact sheet.

Run by ``make demo``. Everything is written below ``demo/``. A second run downloads nothing and
finds the index up to date. The server is stopped before this ends, however it ends.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import html
import json
import os
import secrets
import shlex
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from rich.console import Console

from imagedex.cli.output import make_table
from imagedex.cli.progress import JobProgress
from imagedex.cli.text import duration, printable
from imagedex.client import ClientError, ImagedexClient, QueryAnswer

DEMO = Path(__file__).resolve().parents[1] / "demo"

# The wheel of one platform serves all: only the photos in it are used.
WHEEL = "scikit_image-0.25.2-cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"
WHEEL_SHA256 = "a17e17eb8562660cc0d31bb55643a4da996a81944b82c54805c91b3fe66f4824"
WHEEL_PLATFORM = (
    *("--only-binary", ":all:", "--platform", "manylinux2014_x86_64"),
    *("--implementation", "cp", "--python-version", "3.12", "--abi", "cp312"),
)
# All pictures of the wheel but test patterns and files of a few pixels.
PHOTOS = """
    astronaut.png brick.png camera.png cell.png chelsea.png clock_motion.png coffee.png coins.png
    grass.png gravel.png horse.png hubble_deep_field.jpg ihc.png logo.png microaneurysms.png
    moon.png motorcycle_left.png motorcycle_right.png page.png retina.jpg rocket.jpg text.png
""".split()

QUERIES = (
    "a cup of coffee",
    "a cat",
    "a motorcycle",
    "an astronaut in a space suit",
    "a man with a camera on a tripod",
    "a space rocket on its launch pad",
    "a brick wall",
)
RESULTS_OF_A_QUERY = 4
START_SECONDS = 120.0
STOP_SECONDS = 30.0


class DemoFailed(Exception):
    """The demo cannot go on; its text says why."""


def main() -> int:
    """Run the demo and return the exit code."""
    parser = argparse.ArgumentParser(description="Show Imagedex at work.")
    parser.add_argument("--photos", type=Path, help="index this directory, and download nothing")
    parser.add_argument("--folder", type=Path, default=DEMO, help="where all files are written")
    arguments = parser.parse_args()
    # A terminal that goes away, or a supervisor, must not leave the server behind.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    console = Console(highlight=False, markup=False)
    folder = arguments.folder.resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        photos = arguments.photos.resolve() if arguments.photos else fetch_photos(folder, console)
        run(folder, photos, console)
    except (DemoFailed, ClientError, OSError) as error:
        print(f"The demo failed: {printable(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def run(folder: Path, photos: Path, console: Console) -> None:
    """Serve, index, search, and write the contact sheet."""
    api_key = secrets.token_urlsafe(32)
    with serving(folder, photos, api_key) as url, ImagedexClient(url, api_key) as client:
        console.print(
            f"The server is ready at {url} (its log: {folder / 'server.log'}).", soft_wrap=True
        )
        index(client, photos, console)
        answers = [client.query(text, top_k=RESULTS_OF_A_QUERY) for text in QUERIES]
        for answer in answers:
            show(answer, console)
        sheet = folder / "contact-sheet.html"
        write_contact_sheet(sheet, answers, client)
    serve = Path(sys.executable).with_name("imagedex")
    console.print("\nThe server is stopped. To run it again, with its search page:")
    console.print(
        f"  IMAGEDEX_HOME={shlex.quote(str(folder / 'home'))} "
        f"IMAGEDEX_IMAGE_ROOTS={shlex.quote(str(photos))} {shlex.quote(str(serve))} serve",
        soft_wrap=True,
    )
    console.print("The results as pictures:")
    console.print(f"  {sheet}", soft_wrap=True)


def fetch_photos(folder: Path, console: Console) -> Path:
    """Return the directory of the sample photos, fetched from scikit-image's wheel."""
    wheel = folder / "cache" / WHEEL
    if not wheel.is_file() or _sha256(wheel) != WHEEL_SHA256:
        console.print("Fetching sample photos (scikit-image's wheel, 15 MB) with pip …")
        _download(wheel.parent)
    photos = folder / "photos"
    photos.mkdir(exist_ok=True)
    with zipfile.ZipFile(wheel) as archive:
        for name in PHOTOS:
            _write_if_different(photos / name, archive.read(f"skimage/data/{name}"))
    return photos


def _download(cache: Path) -> None:
    cache.mkdir(parents=True, exist_ok=True)
    requirements = cache / "requirements.txt"
    requirements.write_text(f"scikit-image==0.25.2 --hash=sha256:{WHEEL_SHA256}\n")
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
        *("--no-input", "--no-deps", "--dest", str(cache), *WHEEL_PLATFORM),
        *("--requirement", str(requirements)),
    ]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0 or not (cache / WHEEL).is_file():
        raise DemoFailed(
            f"pip could not download the sample photos:\n{done.stderr.strip()}\n"
            "With photos of your own: scripts/demo.py --photos DIR"
        )


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _write_if_different(file: Path, content: bytes) -> None:
    # A file that is written again looks changed, and would be indexed again.
    if not file.is_file() or file.read_bytes() != content:
        _replace(file, content)


def _replace(file: Path, content: bytes) -> None:
    temporary = file.with_name(f".{file.name}.tmp")
    temporary.write_bytes(content)
    temporary.replace(file)


@contextmanager
def serving(folder: Path, photos: Path, api_key: str) -> Iterator[str]:
    """Run ``imagedex serve`` as a process of its own; yield its URL when it is ready."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("IMAGEDEX_")},
        "IMAGEDEX_HOME": str(folder / "home"),
        "IMAGEDEX_IMAGE_ROOTS": str(photos),
        "IMAGEDEX_ADMIN_KEY": api_key,
    }
    log = folder / "server.log"
    command = [sys.executable, "-m", "imagedex.cli", "serve", "--host", "127.0.0.1", "--port", "0"]
    with log.open("wb") as stream:
        server = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream
        )
    try:
        yield _wait_until_ready(server, log, api_key)
    finally:
        _stop(server)


def _wait_until_ready(server: subprocess.Popen[bytes], log: Path, api_key: str) -> str:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        url = _listening_url(log)
        if url is not None:
            with ImagedexClient(url, api_key) as client:
                if client.is_ready():
                    return url
        time.sleep(0.1)
    last_lines = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
    raise DemoFailed(f"the server did not start; the end of {log}:\n{last_lines}")


def _listening_url(log: Path) -> str | None:
    for line in log.read_text(errors="replace").splitlines(keepends=True):
        if '"listening"' in line and line.endswith("\n"):
            url: str = json.loads(line)["url"]
            return url
    return None


def _stop(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def index(client: ImagedexClient, photos: Path, console: Console) -> None:
    """Index the photos over REST, with progress."""
    started = time.monotonic()
    receipt = client.trigger(str(photos))
    with JobProgress(console) as progress:
        state = client.wait(receipt.job_id, progress.show)
    if state.status != "completed":
        raise DemoFailed(f"job {state.job_id} is {state.status}: {state.error}")
    found = state.progress.processed_images - state.progress.failed_images
    if not found:
        raise DemoFailed(f"no image could be indexed in {photos}")
    took = duration(time.monotonic() - started)
    console.print(f"{found} photos are indexed ({took}); {state.progress.failed_images} failed.")


def show(answer: QueryAnswer, console: Console) -> None:
    """Print the ranked results of one query."""
    console.print(f"\n“{answer.query}”  ({answer.query_time_seconds * 1000:.1f} ms)")
    rows = [
        (str(result.rank), f"{result.score:.3f}", Path(result.image_path).name)
        for result in answer.results
    ]
    console.print(make_table(("rank", "score", "photo"), rows))


SHEET = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
      content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>Imagedex: search results</title>
<style>
:root {{ color-scheme: light dark; --edge: light-dark(#d8dbe0, #3a3f47); }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto;
        padding: 0 1rem; }}
h1 {{ font-size: 1.4rem; }}
h2 {{ font-size: 1.1rem; margin: 2rem 0 .6rem; }}
.results {{ display: grid; gap: 1rem;
            grid-template-columns: repeat(auto-fit, minmax(13rem, 1fr)); }}
figure {{ margin: 0; padding: .6rem; border: 1px solid var(--edge); border-radius: .5rem; }}
img {{ display: block; width: 100%; height: 11rem; object-fit: contain; }}
figcaption {{ margin-top: .4rem; font-size: .85rem; overflow-wrap: anywhere; }}
</style>
</head>
<body>
<h1>Imagedex: what each description finds</h1>
<p>{summary}</p>
{sections}
</body>
</html>
"""


def write_contact_sheet(file: Path, answers: Sequence[QueryAnswer], client: ImagedexClient) -> None:
    """Write one HTML page that holds all it shows: results with thumbnails, best first."""
    total = answers[0].index_stats
    page = SHEET.format(
        summary=html.escape(f"{total.total_images} photos, model {total.model}."),
        sections="\n".join(_section(answer, client) for answer in answers),
    )
    _replace(file, page.encode())


def _section(answer: QueryAnswer, client: ImagedexClient) -> str:
    figures = []
    for result in answer.results:
        name = html.escape(printable(Path(result.image_path).name))
        jpeg = base64.b64encode(client.thumbnail(result.image_id, size=320)).decode("ascii")
        figures.append(
            f'<figure><img alt="{name}" src="data:image/jpeg;base64,{jpeg}">'
            f"<figcaption>{result.rank}. {name}<br>score {result.score:.3f}</figcaption></figure>"
        )
    return f'<h2>{html.escape(answer.query)}</h2>\n<div class="results">{"".join(figures)}</div>'


def _leave(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
