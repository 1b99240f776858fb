"""Keeping a library's telemetry out of this process."""

from __future__ import annotations

import sys


def forbid_telemetry() -> None:
    """Make ``import openvino`` and ``import nncf`` report nothing to anybody.

    Both bring openvino-telemetry, which asks nobody: importing OpenVINO is enough for it to
    write an identity into the home directory and to send events to google-analytics.com. They
    do without it where it cannot be imported, which is what a None here says (see
    https://docs.python.org/3/reference/import.html#the-module-cache). Works if it is called
    before the first import of either; where somebody else has imported the telemetry already,
    that is theirs to answer for, and it is left as it is.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
