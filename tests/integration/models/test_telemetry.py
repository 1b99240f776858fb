"""Libraries that report on their users by default report nothing from here."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from support.tiny_models import IMAGE_SIZE, write_tiny_clip

# Everything that could carry something out is told to this hook before it happens.
WATCHED = """
    import sys

    def watch(event, arguments):
        if event.startswith("socket.") or event in ("os.fork", "os.posix_spawn", "os.exec"):
            print("did", event, arguments)
        if event == "subprocess.Popen":
            print("did", event, arguments[0])

    sys.addaudithook(watch)
"""
LOAD = """
    import sys
    from pathlib import Path
    from imagedex.embedding.clip import ClipModel
    from imagedex.embedding.runtimes import Runtime

    ClipModel.open(
        Path(sys.argv[1]), name="tiny", runtime=Runtime.OPENVINO
    ).load_image_encoder(threads=1)
    import openvino
"""
QUANTISE = f"""
    import sys
    from pathlib import Path
    import numpy as np
    from imagedex.embedding.runtimes import PixelInput
    from imagedex.models._nncf import quantise_calibrated

    directory, third = Path(sys.argv[1]), (0.5, 0.5, 0.5)
    edge = {IMAGE_SIZE}
    quantise_calibrated(
        directory / "visual" / "model.onnx",
        directory / "made.xml",
        pixels=PixelInput("image", third, third, edge, edge),
        vectors="embedding",
        pictures=[np.zeros((edge, edge, 3), dtype=np.uint8)],
    )
    assert (directory / "made.bin").is_file()
"""


@pytest.mark.parametrize("script", [LOAD, QUANTISE], ids=["OpenVINO", "NNCF"])
def test_nothing_leaves_the_process_and_nothing_is_written_to_the_home(
    tmp_path: Path, script: str
) -> None:
    directory = write_tiny_clip(tmp_path / "tiny")
    home = tmp_path / "home"
    home.mkdir()
    # Without CI's variables, in which the telemetry keeps still of its own accord.
    environment = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(WATCHED) + textwrap.dedent(script), str(directory)],
        env={**environment, "HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "did" not in done.stdout
    assert list(home.rglob("*")) == []
