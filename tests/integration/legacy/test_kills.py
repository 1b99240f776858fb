"""An import that is killed at any moment goes on where it was."""

from __future__ import annotations

import random
import time
from pathlib import Path

import numpy as np
import pytest

from imagedex.segments import DirectoryIndexFiles
from support.commands import Commands
from support.old_indexes import draw_photos, unit_vectors, write_pair

COUNT, DIM = 300, 768


def adopted(home: Path) -> int:
    """Return how many images the current generation holds."""
    manifest = DirectoryIndexFiles(home / "index").current()
    return 0 if manifest is None else manifest.images


@pytest.mark.timeout(300)
def test_each_image_is_adopted_exactly_once_after_kills_at_random_moments(tmp_path: Path) -> None:
    photos = draw_photos(tmp_path / "photos", COUNT)
    vectors = unit_vectors(COUNT, DIM)
    write_pair(tmp_path / "old", [path.name for path in photos], vectors)
    home = tmp_path / "home"
    commands = Commands.local(
        home,
        IMAGEDEX_INDEXING__CHUNK_IMAGES="1",  # Of which 16 make a chunk of an import.
        IMAGEDEX_INDEXING__COMMIT_IMAGES="40",
        IMAGEDEX_INDEXING__LEASE_SECONDS="2",
    )
    arguments = ("import-legacy", tmp_path / "old", "--root", tmp_path / "photos")
    chance = random.Random(11)
    for number in range(4):
        before = adopted(home)
        process = commands.start(*arguments)
        if number % 2:
            time.sleep(chance.uniform(0.5, 3.0))  # At any moment, mostly before a generation,
        else:
            while process.poll() is None and adopted(home) == before:
                time.sleep(0.002)
            time.sleep(chance.uniform(0.0, 0.1))  # or around the next one.
        process.kill()
        process.communicate()
    assert 0 < adopted(home) < COUNT, "no kill came in the middle"
    outcome = commands.json(*arguments)
    assert outcome["status"] == "completed"

    files = DirectoryIndexFiles(home / "index")
    manifest = files.current()
    assert manifest is not None
    assert manifest.images == COUNT
    hits = files.open(manifest, None).search(vectors, [1] * COUNT)
    assert [found.image_paths[0] for found in hits] == [str(path) for path in photos]
    np.testing.assert_allclose([found.scores[0] for found in hits], 1, atol=1e-6)
    stored = [facts.image_path for s in manifest.segments for _, facts in files.read_facts(s)]
    assert sorted(stored) == [str(path) for path in photos]
    # What is left on the disk is what the generation needs.
    assert not list((home / "index" / "parts").iterdir())
    stats = Commands.local(home, IMAGEDEX_MODEL="clip-ViT-L-14").json("stats")
    assert stats["num_images"] == COUNT
