"""Manifests as JSON: versioned, written canonically, read strictly."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

from imagedex.core.errors import CorruptIndex
from imagedex.core.times import iso_z
from imagedex.segments import layout
from imagedex.segments.records import (
    ANY_MARGIN,
    ANY_NEARNESS,
    FileEntry,
    IvfEntry,
    Manifest,
    SearchDepth,
    SegmentEntry,
    TombstoneEntry,
)

VERSION = 4
# The first had no inverted lists, and a Faiss file of each segment, as the second had. The third
# had one depth for all queries.
_READABLE_VERSIONS = (1, 2, 3, 4)

_SHA256 = re.compile(r"[0-9a-f]{64}")
_EntryT = TypeVar("_EntryT")


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the bytes of a manifest file; equal manifests give equal bytes.

    ``created_at`` is kept to the millisecond.
    """
    document: dict[str, object] = {
        "version": VERSION,
        "generation": manifest.generation,
        "fence": manifest.fence,
        "model_name": manifest.model_name,
        "fingerprint": manifest.fingerprint,
        "dim": manifest.dim,
        "created_at": iso_z(manifest.created_at),
        "images": manifest.images,
        "next_segment": manifest.next_segment,
        "segments": [
            {
                "number": segment.number,
                "generation": segment.generation,
                "rows": segment.rows,
                "parquet": _encode_file(segment.parquet),
                "faiss": None if segment.faiss is None else _encode_file(segment.faiss),
                "job_id": segment.job_id,
                "chunks": list(segment.chunks),
                "ivf": None if segment.ivf is None else _encode_ivf(segment.ivf),
            }
            for segment in manifest.segments
        ],
        "tombstones": [
            {
                "generation": entry.generation,
                "file": _encode_file(entry.file),
                "rows": entry.rows,
            }
            for entry in manifest.tombstones
        ],
    }
    if manifest.base_generation:
        document["base_generation"] = manifest.base_generation
    if manifest.merge_fence:
        document["merge_fence"] = manifest.merge_fence
    if manifest.only_moves:
        document["only_moves"] = True
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def decode_manifest(data: bytes, name: str) -> Manifest:
    """Return the manifest that a file holds.

    Raises CorruptIndex, naming the file, unless every field is there, has its type and agrees
    with the others. ``name`` is the file's name below the index prefix: that of a manifest, or that
    by which it is the successor of another.
    """
    try:
        document = json.loads(data)
        version = document["version"] if isinstance(document, dict) else None
        if version not in _READABLE_VERSIONS or type(version) is not int:
            raise CorruptIndex(
                f"The manifest {name!r} has version {version!r} but this release of Imagedex "
                f"reads versions up to {VERSION}; use the release that wrote it."
            )
        manifest = _decode(_Fields(document, "manifest"))
        _require_consistent(manifest, name)
    except (ValueError, KeyError, RecursionError) as error:
        raise CorruptIndex(
            f"The manifest {name!r} is damaged ({error}); restore it from a copy of the index, "
            "or index again under another prefix."
        ) from error
    return manifest


class _Fields:
    """The members of a JSON object, each of which must be taken exactly once."""

    def __init__(self, document: object, where: str) -> None:
        if not isinstance(document, dict):
            raise ValueError(f"{where} is {document!r}, expected an object")
        self._left: dict[str, Any] = dict(document)
        self._where = where

    def _take(self, key: str, kind: type) -> Any:
        if key not in self._left:
            raise ValueError(f"{self._where} has no {key!r}")
        value = self._left.pop(key)
        if type(value) is not kind:  # isinstance() would take True for a number.
            raise ValueError(f"{key!r} of {self._where} is {value!r}, expected {kind.__name__}")
        return value

    def count(self, key: str, *, least: int = 0) -> int:
        value: int = self._take(key, int)
        if value < least:
            raise ValueError(f"{key!r} of {self._where} is {value}, expected at least {least}")
        return value

    def optional_count(self, key: str) -> int:
        return self.count(key, least=1) if key in self._left else 0

    def optional_flag(self, key: str) -> bool:
        return key in self._left and bool(self._take(key, bool))

    def text(self, key: str) -> str:
        value: str = self._take(key, str)
        return value

    def number(self, key: str) -> float:
        value: float = self._take(key, float)
        return value

    def optional_number(self, key: str, default: float) -> float:
        return self.number(key) if key in self._left else default

    def optional(self, key: str, decode: Callable[[_Fields], _EntryT]) -> _EntryT | None:
        if self._left.get(key) is None:
            self._left.pop(key, None)
            return None
        return decode(self.fields(key))

    def fields(self, key: str) -> _Fields:
        return _Fields(self._take(key, dict), f"{key!r} of {self._where}")

    def each(self, key: str, decode: Callable[[_Fields], _EntryT]) -> tuple[_EntryT, ...]:
        values = self._take(key, list)
        return tuple(
            decode(_Fields(value, f"{key}[{i}] of {self._where}")) for i, value in enumerate(values)
        )

    def counts(self, key: str) -> tuple[int, ...]:
        values = self._take(key, list)
        if not all(type(value) is int and value >= 0 for value in values):
            raise ValueError(f"{key!r} of {self._where} is {values!r}, expected whole numbers")
        return tuple(values)

    def end(self) -> None:
        if self._left:
            raise ValueError(f"{self._where} has unknown members {sorted(self._left)}")


def _decode(fields: _Fields) -> Manifest:
    fields.count("version")
    manifest = Manifest(
        generation=fields.count("generation", least=1),
        fence=fields.count("fence"),
        model_name=fields.text("model_name"),
        fingerprint=fields.text("fingerprint"),
        dim=fields.count("dim", least=1),
        created_at=_decode_moment(fields.text("created_at")),
        images=fields.count("images"),
        next_segment=fields.count("next_segment", least=1),
        segments=fields.each("segments", _decode_segment),
        tombstones=fields.each("tombstones", _decode_tombstone),
        base_generation=fields.optional_count("base_generation"),
        merge_fence=fields.optional_count("merge_fence"),
        only_moves=fields.optional_flag("only_moves"),
    )
    fields.end()
    return manifest


def _decode_segment(fields: _Fields) -> SegmentEntry:
    entry = SegmentEntry(
        number=fields.count("number", least=1),
        generation=fields.count("generation", least=1),
        rows=fields.count("rows", least=1),
        parquet=_decode_file(fields.fields("parquet")),
        faiss=fields.optional("faiss", _decode_file),
        job_id=fields.text("job_id"),
        chunks=fields.counts("chunks"),
        ivf=fields.optional("ivf", _decode_ivf),
    )
    fields.end()
    if entry.ivf is not None and entry.faiss is None:
        raise ValueError(f"segment {entry.number} has inverted lists, but no vectors to compare")
    ivf = entry.ivf.file if entry.ivf is not None else None
    for file, suffix in ((entry.parquet, ".parquet"), (entry.faiss, ".faiss"), (ivf, ".ivf")):
        if file is None:
            continue
        if layout.number_of_segment(file.name) != entry.number or not file.name.endswith(suffix):
            raise ValueError(f"{file.name!r} cannot be the {suffix} file of {entry.number}")
    return entry


def _encode_ivf(entry: IvfEntry) -> dict[str, object]:
    return {
        "file": _encode_file(entry.file),
        "depths": [
            {
                "k": depth.k,
                "nearness": depth.nearness,
                "probes": depth.probes,
                "margin": depth.margin,
                "candidates": depth.candidates,
                "recall": depth.recall,
            }
            for depth in entry.depths
        ],
    }


def _decode_ivf(fields: _Fields) -> IvfEntry:
    entry = IvfEntry(
        file=_decode_file(fields.fields("file")), depths=fields.each("depths", _decode_depth)
    )
    fields.end()
    order = [(depth.k, -depth.nearness) for depth in entry.depths]
    if not order or order != sorted(set(order)):
        raise ValueError(
            f"the depths of {entry.file.name!r} are not for a rising k and a falling nearness"
        )
    return entry


def _decode_depth(fields: _Fields) -> SearchDepth:
    depth = SearchDepth(
        k=fields.count("k", least=1),
        nearness=fields.optional_number("nearness", ANY_NEARNESS),
        probes=fields.count("probes", least=1),
        margin=fields.optional_number("margin", ANY_MARGIN),
        candidates=fields.count("candidates", least=1),
        recall=fields.number("recall"),
    )
    fields.end()
    if not 0 <= depth.recall <= 1 or depth.candidates < depth.k or not depth.margin >= 0:
        raise ValueError(f"{depth} is no depth of a search")
    return depth


def _decode_tombstone(fields: _Fields) -> TombstoneEntry:
    entry = TombstoneEntry(
        generation=fields.count("generation", least=1),
        file=_decode_file(fields.fields("file")),
        rows=fields.count("rows", least=1),
    )
    fields.end()
    if layout.generation_of_tombstones(entry.file.name) != entry.generation:
        raise ValueError(f"{entry.file.name!r} cannot hold tombstones of {entry.generation}")
    return entry


def _encode_file(entry: FileEntry) -> dict[str, object]:
    return {"name": entry.name, "bytes": entry.bytes, "sha256": entry.sha256}


def _decode_file(fields: _Fields) -> FileEntry:
    entry = FileEntry(
        name=fields.text("name"), bytes=fields.count("bytes"), sha256=fields.text("sha256")
    )
    fields.end()
    if not _SHA256.fullmatch(entry.sha256):
        raise ValueError(f"{entry.sha256!r} is not a SHA-256")
    return entry


def _decode_moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    return moment


def _require_consistent(manifest: Manifest, name: str) -> None:
    follows = layout.generation_of_successor(name)
    if follows is None:
        is_it = layout.generation_of_manifest(name) == manifest.generation
    else:
        is_it = manifest.generation > follows
    if not is_it:
        raise ValueError(f"it describes generation {manifest.generation}")
    numbers = [segment.number for segment in manifest.segments]
    if numbers != sorted(set(numbers)) or (numbers and numbers[-1] >= manifest.next_segment):
        raise ValueError(f"its segments {numbers} do not rise below {manifest.next_segment}")
    generations = [segment.generation for segment in manifest.segments]
    generations += [entry.generation for entry in manifest.tombstones]
    if max(generations, default=0) > manifest.generation:
        raise ValueError(f"it lists a file of generation {max(generations)}")
    if manifest.base_generation > manifest.generation:
        raise ValueError(f"its base is generation {manifest.base_generation}")
    rows = sum(segment.rows for segment in manifest.segments)
    gone = sum(entry.rows for entry in manifest.tombstones)
    if manifest.images != rows - gone:
        raise ValueError(f"it counts {manifest.images} images in {rows} rows, {gone} of them gone")
