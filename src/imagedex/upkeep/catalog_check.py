"""Whether the catalog says what the index holds."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from imagedex.catalog import Catalog
from imagedex.segments import Finding, FindingKind, LiveRows, Manifest
from imagedex.segments.findings import REPAIR

_BATCH = 10_000
_EXAMPLES = 3


def compare_catalog(catalog: Catalog, index_prefix: Path, manifest: Manifest) -> list[Finding]:
    """Hold the catalog of an index against its current generation, row by row.

    Raises CorruptIndex, StorageError when the index cannot be read.
    """
    index = catalog.get_index(index_prefix)
    if index is None:
        return [_finding(f"The catalog does not know the index at {str(index_prefix)!r}.")]
    if index.generation != manifest.generation:
        return [
            _finding(
                f"The catalog describes generation {index.generation} of {str(index_prefix)!r}, "
                f"whose current one is {manifest.generation}."
            )
        ]
    rows = LiveRows(index_prefix, manifest)
    wrong: list[str] = []
    known = 0
    located = catalog.locations(index.index_id)
    while batch := list(islice(located, _BATCH)):
        known += len(batch)
        wrong.extend(rows.tick(batch))
    findings = []
    if wrong:
        findings.append(
            _finding(
                f"{_images(len(wrong), 'catalog')} not where it says, such as {_examples(wrong)}."
            )
        )
    left = list(islice(rows.left(), _EXAMPLES))
    if left:
        missing = manifest.images - (known - len(wrong))
        findings.append(
            _finding(f"{_images(missing, 'index')} not in the catalog, such as {_examples(left)}.")
        )
    counted = catalog.counts(index.index_id).indexed
    if counted != known:
        findings.append(
            _finding(f"The catalog counts {counted} indexed images, though it lists {known}.")
        )
    return findings


def _images(count: int, place: str) -> str:
    return f"1 image of the {place} is" if count == 1 else f"{count} images of the {place} are"


def _examples(paths: list[str]) -> str:
    return ", ".join(map(repr, paths[:_EXAMPLES]))


def _finding(message: str) -> Finding:
    return Finding(FindingKind.CATALOG, None, message, REPAIR)
