"""Rows of the catalog, and the records that they are."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from imagedex.catalog._sql.statements import AnyRow
from imagedex.catalog.interfaces import CatalogEntry, ImageState, IndexEntry
from imagedex.core.images import FileStamp, ImageFacts, ImageFailure, RowLocation

_STATES = {state.value: state for state in ImageState}


def index_entry(row: AnyRow) -> IndexEntry:
    """Read a row of ``INDEXES``."""
    return IndexEntry(
        index_id=row.index_id,
        index_prefix=Path(row.index_prefix),
        generation=row.generation,
        updated_at=None if row.updated_at is None else datetime.fromtimestamp(row.updated_at, UTC),
        is_moving=bool(row.is_moving),
    )


def catalog_entry(row: AnyRow) -> CatalogEntry:
    """Read a row of ``IMAGES``; by position, since names take a third of a long lookup."""
    (path, state, size, mtime_ns, content_hash, segment, segment_row) = row[:7]
    return CatalogEntry(
        path,
        _STATES[state],
        None if size is None else FileStamp(size, mtime_ns),
        content_hash,
        None if segment is None else RowLocation(segment, segment_row),
        *row[7:],
    )


def indexed_values(index_id: int, location: RowLocation, facts: ImageFacts) -> dict[str, Any]:
    """Return the columns of an image that is indexed."""
    return {
        "index_id": index_id,
        "image_path": facts.image_path,
        "state": ImageState.INDEXED.value,
        "segment": location.segment,
        "segment_row": location.row,
        "size": facts.stamp.size,
        "mtime_ns": facts.stamp.mtime_ns,
        "content_hash": facts.content_hash,
        "width": facts.width,
        "height": facts.height,
        "reason": None,
        "detail": None,
    }


def failed_values(index_id: int, failure: ImageFailure) -> dict[str, Any]:
    """Leave out the columns that describe an older version which is indexed."""
    return {
        "index_id": index_id,
        "image_path": failure.image_path,
        "state": ImageState.FAILED.value,
        "size": None if failure.stamp is None else failure.stamp.size,
        "mtime_ns": None if failure.stamp is None else failure.stamp.mtime_ns,
        "reason": failure.reason.value,
        "detail": failure.detail,
    }
