from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from imagedex.embedding.runtimes import (
    PIXELS,
    PixelInput,
    Precision,
    Runtime,
    load_graph,
    supports,
)
from support.small_graphs import SIDE, image_graph

PLAIN = PixelInput("image", (0, 0, 0), (1, 1, 1), height=SIDE, width=SIDE)

pytestmark = pytest.mark.skipif(
    supports(Precision.FP32, Runtime.OPENVINO) is not None, reason="OpenVINO is not installed here"
)


def resident_kilobytes(path: Path) -> list[int]:
    """Return how much of each mapping of a file this process holds in memory."""
    found: list[int] = []
    is_ours = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        key, _, value = line.partition(":")
        if "-" in key and " " in key:
            is_ours = line.endswith(str(path))
        elif is_ours and key == "Rss":
            found.append(int(value.split()[0]))
    return found


def test_a_models_file_stays_mapped_but_takes_no_memory_between_runs(tmp_path: Path) -> None:
    path = image_graph(tmp_path / "model.onnx", hidden=100_000)
    runner = load_graph(path, threads=1, output="embedding", runtime=Runtime.OPENVINO, pixels=PLAIN)
    pictures = np.ones((3, SIDE, SIDE, 3), dtype=np.uint8)
    for count in (3, 1, 2):
        runner.run({PIXELS: pictures[:count]})
        resident = resident_kilobytes(path)
        assert resident
        assert sum(resident) < 1_000


def test_a_model_that_is_replaced_while_it_is_loaded_stays_what_it_was(tmp_path: Path) -> None:
    path = image_graph(tmp_path / "model.onnx", hidden=50_000)
    runner = load_graph(path, threads=1, output="embedding", runtime=Runtime.OPENVINO, pixels=PLAIN)
    pictures = np.random.default_rng(1).integers(0, 256, (9, SIDE, SIDE, 3), dtype=np.uint8)
    before = runner.run({PIXELS: pictures})
    other = tmp_path / "other.onnx"
    other.write_bytes(b"no graph")
    other.replace(path)
    # Batches of other sizes may have weights packed again, from the file that is gone.
    alone = np.concatenate([runner.run({PIXELS: picture[None]}) for picture in pictures])
    np.testing.assert_allclose(alone, before, rtol=1e-4, atol=1e-4)
