"""How much of the machine an evaluation takes."""

from __future__ import annotations

import subprocess
import sys


def test_an_evaluation_uses_no_more_cores_than_it_is_allowed() -> None:
    program = (
        "import os\n"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from imagedex.cli.commands.eval import _threads\n"
        "from imagedex.settings import Settings\n"
        "print(_threads(Settings()))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout == "1\n"
