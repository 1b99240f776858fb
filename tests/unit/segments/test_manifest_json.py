"""Manifests are read strictly."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from imagedex.core.errors import CorruptIndex
from imagedex.segments import FileEntry, Manifest, SegmentEntry, TombstoneEntry
from imagedex.segments.manifest_json import decode_manifest, encode_manifest
from imagedex.segments.records import ANY_MARGIN, ANY_NEARNESS, IvfEntry, SearchDepth

_NAME = "manifests/00000004-2.json"
_IVF = IvfEntry(
    FileEntry("segments/00000002-1.ivf", 12, "d" * 64),
    (
        SearchDepth(10, 0.5, 8, 0.01, 100, 0.995),
        SearchDepth(10, ANY_NEARNESS, 64, ANY_MARGIN, 100, 0.995),
        SearchDepth(100, ANY_NEARNESS, 16, 0.1, 500, 1.0),
    ),
)
_MANIFEST = Manifest(
    generation=4,
    fence=2,
    model_name="modèle",
    fingerprint="f",
    dim=3,
    created_at=datetime(2025, 11, 14, 12, 34, 56, 789000, tzinfo=UTC),
    images=9,
    next_segment=3,
    segments=tuple(
        SegmentEntry(
            number=number,
            generation=number,
            rows=5,
            parquet=FileEntry(f"segments/{number:08d}-1.parquet", 10, "a" * 64),
            faiss=FileEntry(f"segments/{number:08d}-1.faiss", 11, "b" * 64),
            job_id="job",
            chunks=(1, 2),
            ivf=_IVF if number == 2 else None,
        )
        for number in (1, 2)
    ),
    tombstones=(
        TombstoneEntry(
            generation=3, file=FileEntry("tombstones/00000003-1.parquet", 5, "c" * 64), rows=1
        ),
    ),
)


def test_a_manifest_is_read_as_it_was_written() -> None:
    assert decode_manifest(encode_manifest(_MANIFEST), _NAME) == _MANIFEST


def test_a_depth_of_an_older_manifest_is_for_all_queries() -> None:
    manifest = json.loads(encode_manifest(_MANIFEST))
    manifest["version"] = 3
    manifest["segments"][1]["ivf"]["depths"] = [_DEPTH]
    ivf = decode_manifest(json.dumps(manifest).encode(), _NAME).segments[1].ivf
    assert ivf is not None
    assert ivf.depths == (SearchDepth(10, ANY_NEARNESS, 8, ANY_MARGIN, 100, 0.995),)


def test_the_base_generation_is_written_where_there_is_one() -> None:
    assert b"base_generation" not in encode_manifest(_MANIFEST)
    restored = replace(_MANIFEST, base_generation=4)
    assert decode_manifest(encode_manifest(restored), _NAME) == restored


def test_what_a_merge_says_of_itself_is_written_where_it_does() -> None:
    assert b"merge_fence" not in encode_manifest(_MANIFEST)
    assert b"only_moves" not in encode_manifest(_MANIFEST)
    merged = replace(_MANIFEST, merge_fence=3, only_moves=True)
    assert decode_manifest(encode_manifest(merged), _NAME) == merged


def test_a_manifest_of_a_later_version_asks_for_a_later_release() -> None:
    document = json.loads(encode_manifest(_MANIFEST)) | {"version": 5, "new": True}
    with pytest.raises(CorruptIndex, match=r"version 5 .* use the release that wrote it"):
        decode_manifest(json.dumps(document).encode(), _NAME)


def test_a_manifest_of_the_first_version_has_no_inverted_lists() -> None:
    document = json.loads(encode_manifest(_MANIFEST)) | {"version": 1}
    for segment in document["segments"]:
        del segment["ivf"]
    manifest = decode_manifest(json.dumps(document).encode(), _NAME)
    assert [segment.ivf for segment in manifest.segments] == [None, None]


def test_a_segment_without_a_faiss_file_is_read_as_it_was_written() -> None:
    small = replace(_MANIFEST.segments[0], faiss=None)
    manifest = replace(_MANIFEST, segments=(small, _MANIFEST.segments[1]))
    assert decode_manifest(encode_manifest(manifest), _NAME) == manifest


def _set(**values: object) -> Callable[[dict[str, Any]], None]:
    return lambda document: document.update(values)


def _set_segment(**values: object) -> Callable[[dict[str, Any]], None]:
    return lambda document: document["segments"][0].update(values)


def _set_second(**values: object) -> Callable[[dict[str, Any]], None]:
    return lambda document: document["segments"][1].update(values)


def _set_ivf(**values: object) -> Callable[[dict[str, Any]], None]:
    return lambda document: document["segments"][1]["ivf"].update(values)


def _drop(key: str) -> Callable[[dict[str, Any]], None]:
    return lambda document: document.__delitem__(key)


_DEPTH = {"k": 10, "probes": 8, "candidates": 100, "recall": 0.995}


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_drop("fence"), "no 'fence'"),
        (_set_ivf(depths=[]), "rising k"),
        (_set_ivf(depths=[_DEPTH, _DEPTH]), "rising k"),
        (_set_ivf(depths=[_DEPTH, _DEPTH | {"nearness": 0.5}]), "falling nearness"),
        (_set_ivf(depths=[_DEPTH | {"margin": -0.1}]), "no depth of a search"),
        (_set_ivf(depths=[_DEPTH | {"recall": 1.5}]), "no depth of a search"),
        (_set_ivf(depths=[_DEPTH | {"candidates": 9}]), "no depth of a search"),
        (_set_ivf(file={"name": "segments/00000001-1.ivf", "bytes": 1, "sha256": "d" * 64}), "ivf"),
        (_set_second(faiss=None), "inverted lists, but no vectors"),
        (_set(extra=1), "unknown members"),
        (_set(generation=True), "'generation'"),
        (_set(generation=5), "describes generation 5"),
        (_set(dim=0), "at least 1"),
        (_set(dim="3"), "expected int"),
        (_set(images=10), "counts 10 images"),
        (_set(next_segment=2), "do not rise"),
        (_set(created_at="2025-11-14T12:34:56"), "no time zone"),
        (_set(created_at="yesterday"), "yesterday"),
        (_set(base_generation=5), "base is generation 5"),
        (_set(base_generation=0), "at least 1"),
        (_set(segments={}), "expected list"),
        (_set(tombstones=[3]), "expected an object"),
        (_set_segment(number=2), "cannot be"),
        (_set_segment(rows=-1), "at least 1"),
        (_set_segment(generation=9), "generation 9"),
        (_set_segment(chunks=[-1]), "whole numbers"),
        (_set_segment(job_id=None), "expected str"),
        (_set_segment(faiss={"name": "../x", "bytes": 1, "sha256": "a" * 64}), "cannot be"),
        (
            _set_segment(
                faiss={"name": "segments/00000001-1.faiss", "bytes": 1, "sha256": "short"}
            ),
            "not a SHA-256",
        ),
    ],
)
def test_whatever_does_not_fit_is_refused(
    spoil: Callable[[dict[str, Any]], None], reason: str
) -> None:
    document = json.loads(encode_manifest(_MANIFEST))
    spoil(document)
    with pytest.raises(CorruptIndex, match=reason) as caught:
        decode_manifest(json.dumps(document).encode(), _NAME)
    assert _NAME in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"\0" * 64, b"[1]", b"\xff\xfe", b"[" * 100_000])
def test_what_is_not_a_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(CorruptIndex, match=_NAME):
        decode_manifest(data, _NAME)


def test_tombstones_of_another_generation_than_their_name_says_are_refused() -> None:
    wrong = replace(_MANIFEST, tombstones=(replace(_MANIFEST.tombstones[0], generation=2),))
    with pytest.raises(CorruptIndex, match="cannot hold tombstones of 2"):
        decode_manifest(encode_manifest(wrong), _NAME)
