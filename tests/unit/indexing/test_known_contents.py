"""What files may turn out to be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from imagedex.catalog import SqlCatalog
from imagedex.database import Database
from imagedex.indexing.known_vectors import KnownContents
from imagedex.segments import DirectoryIndexFiles, Part
from imagedex.testing.index_files import FINGERPRINT, make_facts, unit_vectors


def test_of_many_images_of_one_size_a_file_is_held_against_few(
    tmp_path: Path,
) -> None:
    files = DirectoryIndexFiles(tmp_path / "index")
    database = Database(f"sqlite:///{tmp_path / 'never-asked.db'}")
    known = KnownContents(SqlCatalog(database), 1, files, fingerprint=FINGERPRINT)
    for chunk in range(3):
        facts = tuple(
            replace(make_facts(f"/{chunk}/{number}"), content_hash=f"{chunk:032}{number:032}")
            for number in range(500)
        )
        part = Part(facts, unit_vectors(500, 3), FINGERPRINT)
        name = files.write_part("job", chunk, 1, part)
        known.add_part(name)
    photo = tmp_path / "photo"
    photo.write_bytes(bytes(facts[0].stamp.size))
    found = known.of([str(photo)])
    assert found is not None
    vectors = found[str(photo)]
    # Each of them travels to a worker, and to a decoder, whose messages have a bound.
    assert 10 < len(vectors) < 100
    # The newest are kept: copies lie beside their originals.
    assert {vector.file for vector in vectors} == {name}
