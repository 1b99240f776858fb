"""Pictures through a graph, whatever its input is called and however many it takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imagedex.embedding.runtimes.interfaces import PIXELS, GraphRunner, Runtime


class PixelRunner:
    """A runner that is fed its pictures as ``PIXELS``. As safe for threads as what it wraps."""

    def __init__(self, runner: GraphRunner, *, name: str, takes_one: bool) -> None:
        """Feed ``runner`` by the graph's ``name`` for pixels, one by one if it ``takes_one``."""
        self._runner = runner
        self._name = name
        self._takes_one = takes_one

    @property
    def runtime(self) -> Runtime:
        """That of the wrapped runner."""
        return self._runner.runtime

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Return the output for any number of pictures, at least one."""
        fed = dict(inputs)
        pixels = fed.pop(PIXELS)
        if not self._takes_one:
            return self._runner.run(fed | {self._name: pixels})
        # Many published files were exported for a batch of one. Freeing that axis afterwards
        # can mix the pictures of a batch without an error, where a Reshape inside says -1.
        rows = [self._runner.run(fed | {self._name: picture[None]}) for picture in pixels]
        return np.concatenate(rows)
