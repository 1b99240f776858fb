"""``imagedex doctor`` as a real process, beside a real server."""

from __future__ import annotations

from pathlib import Path

from support.commands import Commands
from support.pictures import draw_pictures
from support.server import ServerProcess


def test_the_doctor_finds_a_healthy_index_healthy_and_a_damaged_one_not(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    draw_pictures(photos, 3)
    commands = Commands.local(tmp_path / "home")
    assert "Nothing is indexed" in commands.run("doctor").stdout
    with ServerProcess(tmp_path / "home", [photos]) as server:
        Commands.remote(server).run("index", photos)
        assert commands.run("doctor").stdout.startswith("Healthy: generation 1 with 3 images")
    healthy = commands.json("doctor")
    assert (healthy["healthy"], healthy["num_images"], healthy["findings"]) == (True, 3, [])
    (faiss,) = (tmp_path / "home" / "index" / "segments").glob("*.faiss")
    faiss.unlink()
    found = commands.json("doctor", code=1)
    assert not found["healthy"]
    assert [finding["path"] for finding in found["findings"]] == [str(faiss)]
    told = commands.run("doctor", code=1).stdout
    assert told.startswith("faiss: ")
    assert "1 finding." in told
