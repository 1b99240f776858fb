"""The demo, with photos that are there already."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from support.commands import Commands
from support.pictures import draw_pictures

DEMO = Path(__file__).resolve().parents[2] / "scripts" / "demo.py"


def _run_demo(folder: Path, photos: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, DEMO, "--photos", photos, "--folder", folder],
        env=Commands({}).environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=170,
    )


def _serving(folder: Path) -> list[psutil.Process]:
    home = str(folder / "home")
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("IMAGEDEX_HOME") == home:
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_the_demo_writes_a_contact_sheet_stops_its_server_and_runs_again(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    hostile = "<img src=x onerror=alert(1)>.png"
    first, *_ = draw_pictures(photos, 4)
    first.rename(photos / hostile)
    folder = tmp_path / "demo"

    done = _run_demo(folder, photos)

    assert done.returncode == 0, done.stderr
    assert "4 photos are indexed" in done.stdout
    assert re.search(r"rank +score +photo", done.stdout)
    sheet = (folder / "contact-sheet.html").read_text()
    assert done.stdout.rstrip().endswith(str(folder / "contact-sheet.html"))
    assert sheet.count('src="data:image/jpeg;base64,') >= 4
    assert "&lt;img src=x onerror=alert(1)&gt;.png" in sheet
    assert hostile not in sheet
    assert "http" not in re.sub(r"http-equiv", "", sheet)
    assert _serving(folder) == []

    again = _run_demo(folder, photos)
    assert again.returncode == 0, again.stderr


def test_a_demo_that_fails_says_why_and_leaves_no_server(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "broken.png").write_bytes(b"nonsense")
    folder = tmp_path / "demo"

    done = _run_demo(folder, photos)

    assert done.returncode == 1
    assert done.stderr.startswith("The demo failed: no image could be indexed")
    assert _serving(folder) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_is_interrupted_leaves_no_server(
    tmp_path: Path, number: signal.Signals
) -> None:
    photos = tmp_path / "photos"
    draw_pictures(photos, 40)
    folder = tmp_path / "demo"
    demo = subprocess.Popen(
        [sys.executable, "-u", DEMO, "--photos", photos, "--folder", folder],
        env=Commands({}).environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert demo.stdout is not None
    assert demo.stdout.readline().startswith("The server is ready")
    assert _serving(folder) != []

    demo.send_signal(number)  # To the demo alone: it must pass it on.
    demo.communicate(timeout=60)

    assert demo.returncode == 128 + number
    assert _serving(folder) == []
