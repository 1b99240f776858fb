"""Numbers that show whether a graph gives the same vectors after its axes were freed.

The inputs are random, since what is proven is arithmetic and not meaning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from imagedex.embedding.runtimes import (
    GraphInfo,
    GraphInput,
    GraphRunner,
    Runtime,
    describe_graph,
    load_graph,
)

LEAST_COSINE = 0.999999

_THREADS = 2
_SEED = 20
# Ids that tokenizers keep for padding and the like come first.
_FIRST_WORD = 4
_LENGTHS = (3, 5, 8, 13, 30)
# Of a graph that takes any length, two are compared.
_SOME_LENGTH = 40
_PICTURES = 3

_Vectors = NDArray[np.float64]
_Ids = NDArray[np.int64]


class Unprovable(Exception):
    """The graph gives nothing that a proof could start from; the text says why."""


@dataclass(frozen=True, slots=True, eq=False)
class _Probes:
    """Token sequences of several lengths; each ends in the largest id, as CLIP's texts do."""

    ids: GraphInput
    mask: GraphInput | None
    rows: tuple[_Ids, ...]
    words: int  # Ids below this one are words.

    def inputs(
        self, rows: Sequence[_Ids], length: int, filler: Literal["zeros", "words"] = "zeros"
    ) -> dict[str, NDArray[Any]]:
        """Return inputs of shape (len(rows), length); what follows a row is no part of it."""
        shape = (len(rows), length)
        ids: _Ids = np.zeros(shape, dtype=np.int64)
        if filler == "words":
            ids = np.random.default_rng(_SEED + 1).integers(_FIRST_WORD, self.words, shape)
        mask: _Ids = np.zeros(shape, dtype=np.int64)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = row
            mask[index, : len(row)] = 1
        inputs = {self.ids.name: ids.astype(self.ids.dtype)}
        if self.mask is not None:
            inputs[self.mask.name] = mask.astype(self.mask.dtype)
        return inputs


class TextProof:
    """The vectors of an original text graph, to hold a rewritten one against."""

    def __init__(self, graph: Path, *, vocabulary: int) -> None:
        """Run the graph, which knows ``vocabulary`` tokens, and unload it again.

        Raises Unprovable, and ModelError when the graph cannot be read or run.
        """
        info = describe_graph(graph)
        self.output = _vector_output(info)
        self._probes = _draw(info, vocabulary)
        batch, length = self._probes.ids.shape
        self._longest = length or _SOME_LENGTH
        runner = _load(graph, self.output)
        self._vectors = self._padded(runner, batch or 1)
        if not _are_all_different(self._vectors):
            raise Unprovable("it gives one vector to different texts, so nothing can be proven")
        filled = self._padded(runner, batch or 1, filler="words")
        self.ignores_padding = _are_alike(self._vectors, filled)
        if length is None and self.ignores_padding:
            self.ignores_padding = batch is not None or self._holds_cut(runner)

    def holds(self, graph: Path, *, batch: bool, length: bool) -> bool:
        """Return whether ``graph`` gives the same vectors with these axes free.

        Raises ModelError when it does not run with them.
        """
        runner = _load(graph, self.output)
        if length and not self._holds_cut(runner):
            return False
        if not length and not _are_alike(self._vectors, self._padded(runner, 1)):
            return False
        longest = max(map(len, self._probes.rows)) if length else self._longest
        return not batch or self._matches(runner, [(self._probes.rows, longest)])

    def _holds_cut(self, runner: GraphRunner) -> bool:
        return self._matches(runner, [((row,), len(row)) for row in self._probes.rows])

    def _matches(self, runner: GraphRunner, batches: Sequence[tuple[Sequence[_Ids], int]]) -> bool:
        found = [runner.run(self._probes.inputs(rows, length)) for rows, length in batches]
        return _are_alike(self._vectors, np.concatenate(found).astype(np.float64))

    def _padded(
        self, runner: GraphRunner, batch: int, *, filler: Literal["zeros", "words"] = "zeros"
    ) -> _Vectors:
        """Return the vectors of the probes at one length; a graph for more rows gets copies."""
        found = [
            runner.run(self._probes.inputs([row] * batch, self._longest, filler))[:1]
            for row in self._probes.rows
        ]
        return np.concatenate(found).astype(np.float64)


class PictureProof:
    """The vectors of an original image graph, to hold a rewritten one against."""

    def __init__(self, graph: Path) -> None:
        """Run the graph, which takes one picture, and unload it again.

        Raises Unprovable, and ModelError when the graph cannot be read or run.
        """
        info = describe_graph(graph)
        self.output = _vector_output(info)
        edges = info.inputs[0].shape[1:] if len(info.inputs) == 1 else ()
        if len(edges) != 3 or None in edges:
            raise Unprovable("it has not the input of an image graph")
        self._name = info.inputs[0].name
        shape = (_PICTURES, *(edge for edge in edges if edge is not None))
        pictures = np.random.default_rng(_SEED).standard_normal(shape, dtype=np.float32)
        self._pictures = pictures.astype(info.inputs[0].dtype)
        runner = _load(graph, self.output)
        alone = [runner.run({self._name: picture[None]}) for picture in self._pictures]
        self._vectors: _Vectors = np.concatenate(alone).astype(np.float64)
        if not _are_all_different(self._vectors):
            raise Unprovable("it gives one vector to different pictures, so nothing can be proven")

    def holds(self, graph: Path) -> bool:
        """Return whether ``graph`` gives the same vectors to all pictures at once.

        Raises ModelError when it does not take them so.
        """
        together = _load(graph, self.output).run({self._name: self._pictures})
        return _are_alike(self._vectors, together.astype(np.float64))


def _load(graph: Path, output: str) -> GraphRunner:
    # ONNX Runtime computes in float32 on every machine.
    return load_graph(graph, threads=_THREADS, runtime=Runtime.ONNXRUNTIME, output=output)


def _vector_output(info: GraphInfo) -> str:
    """Return the name of the first output with one vector for each row."""
    name = next((each.name for each in info.outputs if len(each.shape) == 2), None)
    if name is None:
        raise Unprovable("it has no output of one vector for each row")
    return name


def _draw(info: GraphInfo, vocabulary: int) -> _Probes:
    masks = [each for each in info.inputs if "mask" in each.name]
    ids = [each for each in info.inputs if "mask" not in each.name]
    if len(ids) != 1 or len(masks) > 1 or len(ids[0].shape) != 2:
        raise Unprovable("it has not the inputs of a text graph: token ids, and perhaps a mask")
    end = vocabulary - 1
    if end <= _FIRST_WORD:
        raise Unprovable("it has no table of tokens")
    random = np.random.default_rng(_SEED)
    longest = ids[0].shape[1] or _SOME_LENGTH
    lengths = (*(length for length in _LENGTHS if length < longest), longest)
    rows = tuple(
        np.append(random.integers(_FIRST_WORD, end, length - 1), end) for length in lengths
    )
    return _Probes(ids[0], masks[0] if masks else None, rows, end)


def _are_alike(first: _Vectors, second: _Vectors) -> bool:
    """Return whether the rows of both point the same way, as closely as float32 can say."""
    if first.shape != second.shape or not (np.isfinite(first).all() and np.isfinite(second).all()):
        return False
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return bool(((first * second).sum(axis=1) >= LEAST_COSINE * lengths).all())


def _are_all_different(vectors: _Vectors) -> bool:
    rows = [vectors[index : index + 1] for index in range(len(vectors))]
    return not any(
        _are_alike(row, other) for index, row in enumerate(rows) for other in rows[:index]
    )
