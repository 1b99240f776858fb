"""Old indexes as the scripts left them, with pictures on the disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image


def unit_vectors(count: int, dim: int, *, seed: int = 0) -> NDArray[np.float32]:
    """Return random unit vectors."""
    vectors = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def draw_photos(folder: Path, count: int) -> list[Path]:
    """Draw so many small pictures, each with other bytes; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:06d}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        colour = (number % 256, number // 256 % 256, number // 65536)
        Image.new("RGB", (40 + number % 7, 30), colour).save(path)
    return paths


def write_faiss(file: Path, vectors: NDArray[np.float32], kind: type = faiss.IndexFlatIP) -> None:
    """Write a flat index."""
    index = kind(vectors.shape[1])
    index.add(vectors)
    faiss.write_index(index, str(file))


def write_parquet(
    file: Path,
    paths: Sequence[Any],
    vectors: Any = None,
    *,
    path_column: str = "path",
    vector_column: str = "embedding",
    vector_type: Any = None,
    **more: Any,
) -> None:
    """Write a table of paths, vectors where they are given, and more columns."""
    columns: dict[str, Any] = {path_column: pa.array(map(_text, paths), pa.string())}
    if vectors is not None:
        columns[vector_column] = pa.array(list(vectors), vector_type or pa.list_(pa.float32()))
    pq.write_table(pa.table({**columns, **more}), file)


def write_pair(
    prefix: Path, paths: Sequence[Any], vectors: NDArray[np.float32], **options: Any
) -> None:
    """Write both files, with the vectors in each."""
    write_faiss(prefix.with_name(f"{prefix.name}.faiss"), vectors)
    write_parquet(prefix.with_name(f"{prefix.name}.parquet"), paths, vectors, **options)


def _text(path: Any) -> Any:
    return str(path) if isinstance(path, Path) else path
