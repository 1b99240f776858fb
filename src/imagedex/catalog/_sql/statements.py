"""What the catalog asks the database and tells it, compiled once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from sqlalchemy import Row, bindparam, delete, select, update

from imagedex.catalog.interfaces import ImageState
from imagedex.database.dialects import for_drivers
from imagedex.database.tables import images, indexes, missing_images, moving_indexes

AnyRow: TypeAlias = Row[*tuple[Any, ...]]

LIKE = 64  # Contents that one file is compared with; they travel to a worker with its path.
INDEXES = select(
    indexes,
    select(moving_indexes.c.index_id)
    .where(moving_indexes.c.index_id == indexes.c.index_id)
    .exists()
    .label("is_moving"),
)
MOVE = (
    update(images)
    .where(
        images.c.index_id == bindparam("of_index"),
        images.c.segment == bindparam("from_segment"),
        images.c.segment_row == bindparam("from_row"),
    )
    .values(segment=bindparam("to_segment"), segment_row=bindparam("to_row"))
)
PLACE = (
    update(images)
    .where(images.c.image_key == bindparam("known_key"))
    .values(segment=bindparam("to_segment"), segment_row=bindparam("to_row"))
)
KNOWN = select(
    images.c.image_key,
    images.c.image_path,
    images.c.state,
    images.c.segment,
    images.c.content_hash,
)
_BY_PATH = (
    images.c.index_id == bindparam("of_index"),
    images.c.image_path.in_(bindparam("paths", expanding=True)),
)
KNOWN_BY_PATH = KNOWN.where(*_BY_PATH)
IMAGES = select(
    images.c.image_path,
    images.c.state,
    images.c.size,
    images.c.mtime_ns,
    images.c.content_hash,
    images.c.segment,
    images.c.segment_row,
    images.c.width,
    images.c.height,
    images.c.reason,
    images.c.detail,
)
IMAGES_BY_PATH = IMAGES.where(*_BY_PATH)
CONTENTS_OF_SIZE = select(
    images.c.content_hash, images.c.segment, images.c.segment_row, images.c.image_path
).where(
    images.c.image_key.in_(bindparam("keys", expanding=True)),
    images.c.index_id == bindparam("of_index"),
    images.c.size == bindparam("of_size"),
    # The size of one that failed is not that of the version which is indexed.
    images.c.state == ImageState.INDEXED.value,
)
FORGET_MISSING = delete(missing_images).where(
    missing_images.c.index_id == bindparam("of_index"),
    missing_images.c.image_path.in_(bindparam("paths", expanding=True)),
)
OUTLINE_ROWS = 10_000
OUTLINE = for_drivers("""
SELECT max(path), json_array(path), json_array(size), json_array(mtime), json_array(is_indexed)
FROM (
  SELECT image_path AS path, coalesce(size, -1) AS size, coalesce(mtime_ns, 0) AS mtime,
    CASE WHEN state = 'indexed' AND segment IS NOT NULL THEN 1 ELSE 0 END AS is_indexed
  FROM images
  WHERE index_id = ? AND image_path > ? AND image_path < ? ORDER BY image_path LIMIT ?
) AS files
""")


def by_path(index_id: int, paths: Sequence[str]) -> dict[str, Any]:
    """Return the parameters of the statements by path."""
    return {"of_index": index_id, "paths": paths}
