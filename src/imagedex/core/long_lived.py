"""Keep Python's garbage collector away from what will live as long as the process."""

from __future__ import annotations

import gc


def spare_long_lived_objects() -> None:
    """Let later collections look only at objects that are made from now on.

    A full collection stops every thread while it visits each object. With the modules of a
    server loaded that takes an eighth of a second, several times a minute under load; without
    them it is a few milliseconds. Call it when a large part of the process has been loaded.
    """
    gc.collect()  # What is garbage now would be kept for ever.
    gc.freeze()
