"""What part files say of their chunks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from imagedex.core.images import FailureReason, FileStamp, ImageFailure
from imagedex.indexing.outcomes import adopt, outcome_of
from imagedex.ingest import ImageRoots, stamp_of
from imagedex.jobs import Chunk, ChunkAction, ChunkDone, ChunkState
from imagedex.segments import DirectoryIndexFiles, Part
from imagedex.testing.index_files import FINGERPRINT, make_facts, make_part, unit_vectors

PATHS = ("/photos/a", "/photos/b")
CHUNK = Chunk(7, ChunkAction.EMBED, ChunkState.PLANNED, PATHS, None)
DONE = ChunkDone(
    7,
    None,
    1,
    (
        ImageFailure("/photos/b", FailureReason.DAMAGED, "It broke.", FileStamp(5, 2**62)),
        ImageFailure("/photos/c", FailureReason.VANISHED, "Gone."),
    ),
    "local-1.2",
    "here",
    seconds=1.25,
    reused=1,
)
ROOTS = ImageRoots(["/photos"])


@pytest.fixture
def files(tmp_path: Path) -> DirectoryIndexFiles:
    return DirectoryIndexFiles(tmp_path)


def _leave(files: DirectoryIndexFiles, outcome: str, *, fence: int = 1) -> str:
    part = make_part({"/photos/a": unit_vectors(1, 3)[0]}, dim=3)
    return files.write_part("job", 7, fence, part, outcome)


def _adopted(
    files: DirectoryIndexFiles,
    *,
    chunk: Chunk = CHUNK,
    fingerprint: str = FINGERPRINT,
    roots: ImageRoots = ROOTS,
) -> list[ChunkDone]:
    return adopt(
        files, "job", [chunk], fingerprint=fingerprint, image_roots=roots, may_have_changed=True
    )


def test_what_a_part_says_of_its_chunk_is_what_the_worker_said(
    files: DirectoryIndexFiles,
) -> None:
    name = _leave(files, outcome_of(DONE, PATHS))
    (adopted,) = _adopted(files)
    assert adopted.part == name
    assert adopted.failures == DONE.failures
    assert (adopted.number, adopted.indexed, adopted.reused) == (7, 1, 1)
    assert (adopted.worker_id, adopted.host, adopted.seconds) == ("local-1.2", "here", 1.25)


def test_of_several_parts_that_of_the_newest_fence_counts(files: DirectoryIndexFiles) -> None:
    newest = _leave(files, outcome_of(DONE, PATHS), fence=10)
    _leave(files, outcome_of(DONE, PATHS), fence=9)
    _leave(files, "", fence=11)  # It does not say what it is.
    (adopted,) = _adopted(files)
    assert adopted.part == newest


@pytest.mark.parametrize(
    "chunk",
    [
        Chunk(7, ChunkAction.EMBED, ChunkState.PLANNED, ("/photos/a",), None),
        Chunk(7, ChunkAction.EMBED, ChunkState.PLANNED, ("/photos/b", "/photos/a"), None),
        Chunk(8, ChunkAction.EMBED, ChunkState.PLANNED, PATHS, None),
    ],
)
def test_a_part_of_other_images_is_none_of_the_chunk(
    files: DirectoryIndexFiles, chunk: Chunk
) -> None:
    _leave(files, outcome_of(DONE, PATHS))
    assert _adopted(files, chunk=chunk) == []


def test_a_part_of_another_model_or_of_what_is_forbidden_now_is_left(
    files: DirectoryIndexFiles,
) -> None:
    _leave(files, outcome_of(DONE, PATHS))
    assert _adopted(files, fingerprint="another") == []
    assert _adopted(files, roots=ImageRoots(["/other"])) == []
    assert len(_adopted(files)) == 1


def test_what_is_said_in_other_words_is_passed_over(files: DirectoryIndexFiles) -> None:
    said = json.loads(outcome_of(DONE, PATHS))
    wrong = [
        "",
        "no json",
        "[]",
        "null",
        json.dumps({**said, "version": 2}),
        json.dumps({**said, "indexed": "many"}),
        json.dumps({**said, "failures": [{"image_path": "/photos/b"}]}),
        json.dumps({**said, "failures": [{**said["failures"][0], "reason": "unheard of"}]}),
        json.dumps({**said, "failures": [{**said["failures"][0], "stamp": [1]}]}),
    ]
    for outcome in wrong:
        _leave(files, outcome)
    assert _adopted(files) == []


@pytest.mark.parametrize("what", ["nothing", "changed", "removed", "changed failure", "no stamp"])
def test_a_part_of_files_that_have_changed_since_is_left(
    files: DirectoryIndexFiles, tmp_path: Path, what: str
) -> None:
    # Another job may have published the newer picture, or its removal, in the meantime.
    good, broken = tmp_path / "good", tmp_path / "broken"
    good.write_bytes(b"1")
    broken.write_bytes(b"1")
    paths = (str(good), str(broken))
    facts = replace(make_facts(paths[0]), stamp=stamp_of(good.stat()))
    stamp = None if what == "no stamp" else stamp_of(broken.stat())
    failure = ImageFailure(paths[1], FailureReason.DAMAGED, "It broke.", stamp)
    done = replace(DONE, failures=(failure,))
    part = Part((facts,), unit_vectors(1, 3), FINGERPRINT)
    files.write_part("job", 7, 1, part, outcome_of(done, paths))
    if what == "changed":
        good.write_bytes(b"22")
    elif what == "removed":
        good.unlink()
    elif what == "changed failure":
        broken.write_bytes(b"22")
    chunk = replace(CHUNK, image_paths=paths)
    adopted = adopt(
        files, "job", [chunk], fingerprint=FINGERPRINT, image_roots=ImageRoots([tmp_path])
    )
    assert [one.number for one in adopted] == ([7] if what == "nothing" else [])
