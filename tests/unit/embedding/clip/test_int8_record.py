"""The record that says which files are the int8 form of a graph."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from imagedex.core.errors import ModelError
from imagedex.embedding.clip.int8_record import AgreementRecord, Int8Record, QuantisationMethod
from imagedex.embedding.clip.lock_file import LockedFile

RECORD = Int8Record(
    method=QuantisationMethod.CALIBRATED,
    files=(
        LockedFile("model_int8-1.xml", 10, "a" * 64, 5),
        LockedFile("model_int8-1.bin", 20, "b" * 64, 6),
    ),
    calibration_images=300,
    versions={"nncf": "3.4.0"},
    agreement=AgreementRecord(images=100, mean_cosine=0.99, min_cosine=0.98, top10=None),
)


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "model_int8.json"
    path.write_text(RECORD.to_json(), "utf-8")
    assert Int8Record.read(path) == RECORD
    assert RECORD.graph(tmp_path) == tmp_path / "model_int8-1.xml"


def test_where_there_is_no_record_there_is_none(tmp_path: Path) -> None:
    assert Int8Record.read(tmp_path / "model_int8.json") is None
    assert Int8Record.read(tmp_path / "gone" / "model_int8.json") is None


@pytest.mark.parametrize(
    "change",
    [
        {"format": 1},
        {"format": 3},
        {"files": []},
        {"files": [{"path": "../other/model.onnx", "bytes": 1, "sha256": "c", "mtime_ns": 1}]},
        {"files": [{"path": "/etc/passwd", "bytes": 1, "sha256": "c", "mtime_ns": 1}]},
        {"files": [{"path": "..", "bytes": 1, "sha256": "c", "mtime_ns": 1}]},
        {"files": [{"path": 7, "bytes": 1, "sha256": "c", "mtime_ns": 1}]},
        {"calibration_images": math.inf},
        {"method": "guessed"},
        {"versions": 7},
        {"agreement": {"images": 1}},
    ],
)
def test_a_record_that_is_damaged_or_leads_elsewhere_is_refused(
    tmp_path: Path, change: dict[str, object]
) -> None:
    path = tmp_path / "model_int8.json"
    path.write_text(json.dumps(json.loads(RECORD.to_json()) | change), "utf-8")
    with pytest.raises(ModelError, match=r"damaged.*imagedex models quantize"):
        Int8Record.read(path)


def test_a_record_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model_int8.json"
    path.write_text(RECORD.to_json()[:40], "utf-8")
    with pytest.raises(ModelError, match="damaged"):
        Int8Record.read(path)
