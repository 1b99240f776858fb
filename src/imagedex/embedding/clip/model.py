"""A CLIP-like model in a directory of ONNX files."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from imagedex.core.errors import ModelError
from imagedex.core.paths import PathMapping
from imagedex.embedding.clip.file_digests import file_sha256
from imagedex.embedding.clip.files import ModelFiles, find_model_files
from imagedex.embedding.clip.fingerprint import clip_fingerprint
from imagedex.embedding.clip.lock_file import LockFile
from imagedex.embedding.clip.preprocess import ClipPreprocess
from imagedex.embedding.clip.specification import Specification, read_specification
from imagedex.embedding.interfaces import ImageEncoder, TextEncoder
from imagedex.embedding.runtimes import (
    Part,
    PixelInput,
    Precision,
    Runtime,
    describe_graph,
    load_graph,
)


@dataclass(frozen=True)
class ClipModel:
    """OpenAI CLIP, OpenCLIP, SigLIP, SigLIP 2 and M-CLIP, from files in one of two layouts.

    It holds no weights, and is picklable: the halves are loaded where they are needed, from the
    same directory.
    """

    name: str  # What the operator calls it.
    files: ModelFiles
    specification: Specification
    preprocess: ClipPreprocess
    precision: Precision
    runtime: Runtime  # As asked for; AUTO is resolved where a half is loaded.

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        name: str,
        precision: Precision = Precision.FP32,
        runtime: Runtime = Runtime.AUTO,
        reduced_decoding: bool = True,
    ) -> ClipModel:
        """Describe the model in ``directory``, from its JSON files and the headers of its graphs.

        Raises ModelError for files that are missing, damaged or contradict each other, and for a
        precision that the model has no graphs of.
        """
        files = find_model_files(directory.absolute())
        _require_graph(files, "image", precision, name)
        _require_graph(files, "text", precision, name)
        specification = read_specification(files)
        preprocess = ClipPreprocess(specification.image, reduced_decoding)
        return cls(name, files, specification, preprocess, precision, runtime)

    def relocated(self, paths: PathMapping) -> ClipModel:
        """Return the model as this machine has it; raises ModelError when it has not."""
        return ClipModel.open(
            Path(paths.local(str(self.files.directory))),
            name=self.name,
            precision=self.precision,
            runtime=self.runtime,
            reduced_decoding=self.preprocess.reduced_decoding,
        )

    @property
    def dim(self) -> int:
        """Length of its vectors."""
        return self.specification.dim

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Height, width and channels of the input pixels."""
        return (self.specification.image.height, self.specification.image.width, 3)

    @cached_property
    def fingerprint(self) -> str:
        """Identity of what decides an image's vector: weights, preprocessing and precision.

        The text half does not count, so that an index serves every text tower that was trained
        towards the same images, a multilingual one for example. Reads the image graph where the
        lock file does not tell its digest.
        """
        return clip_fingerprint(
            self.precision, self.preprocess, image_digests=self._image_digests()
        )

    def load_image_encoder(self, *, threads: int) -> ImageEncoder:
        """Load the image half, to run on ``threads`` cores.

        Raises ModelError when its files are no longer those of the fingerprint.
        """
        # Imported here, since decoder processes import this module for the preprocessing alone.
        from imagedex.embedding.clip.image_encoder import ClipImageEncoder

        self._require_same_files()
        ports, spec = self.specification.image_ports, self.specification.image
        pixels = PixelInput(
            name=ports.pixels, mean=spec.mean, std=spec.std, height=spec.height, width=spec.width
        )
        runner = load_graph(
            self.files.graph("image", self.precision),
            threads=threads,
            runtime=self.runtime,
            precision=self.precision,
            output=ports.output,
            pixels=pixels,
        )
        # Again, as they may have been replaced between the first look and the loading.
        self._require_same_files()
        return ClipImageEncoder(runner, spec=spec, dim=self.dim)

    def load_text_encoder(self, *, threads: int) -> TextEncoder:
        """Load the text half, to run on ``threads`` cores.

        Raises ModelError when the image half beside it is no longer that of the fingerprint: the
        texts would then be those of another space.
        """
        from imagedex.embedding.clip.text_encoder import ClipTextEncoder
        from imagedex.embedding.clip.tokenizer import ClipTokenizer

        spec = self.specification.text
        # The tokenizer first: its faults show at once, the graph takes seconds to load.
        tokenizer = ClipTokenizer(self.files.tokenizer, spec)
        runner = load_graph(
            self.files.graph("text", self.precision),
            threads=threads,
            runtime=self.runtime,
            precision=self.precision,
            output=spec.output,
        )
        # After the loading, as the model may have been replaced since it was opened.
        self._require_same_files()
        return ClipTextEncoder(runner, tokenizer=tokenizer, spec=spec, dim=self.dim)

    def _image_digests(self) -> list[str]:
        """Return the names and SHA-256 of the image graph and the files with its weights."""
        if self.precision is Precision.INT8:
            return self._int8_digests()
        graph = self.files.graph("image", self.precision)
        lock = LockFile.read(self.files.directory)
        parts = [graph, *describe_graph(graph).weight_files]
        return [
            f"{part.name} {file_sha256(part, directory=self.files.directory, lock=lock)}"
            for part in sorted(parts)
        ]

    def _int8_digests(self) -> list[str]:
        """Return the SHA-256 of the files of the int8 image graph; their names are by chance."""
        folder = self.files.image_graph.parent
        record = self.files.int8_record("image")
        if record is None:
            raise ModelError(_lacks_graph(self.files, "image", self.precision, self.name))
        known = LockFile(self.name, (), record.files)
        return [
            file_sha256(folder / file.path, directory=folder, lock=known) for file in record.files
        ]

    def _require_same_files(self) -> None:
        """Raise ModelError when another process would call vectors of these files another name.

        The fingerprint may have been found long ago, or have travelled here from the controller.
        """
        known = self.fingerprint
        fresh = ClipModel(
            self.name,
            self.files,
            self.specification,
            self.preprocess,
            self.precision,
            self.runtime,
        ).fingerprint
        if fresh != known:
            raise ModelError(
                f"The image half of model {self.name!r} in {str(self.files.directory)!r} is "
                f"{fresh} now, but was {known} when the server started or is so there. Restart "
                "the server, or copy the same files to all hosts."
            )


def _require_graph(files: ModelFiles, part: Part, precision: Precision, name: str) -> None:
    is_there = files.graph(part, precision).is_file()
    if precision is Precision.INT8:
        is_there = is_there and files.int8_record(part) is not None
    if not is_there:
        raise ModelError(_lacks_graph(files, part, precision, name))


def _lacks_graph(files: ModelFiles, part: Part, precision: Precision, name: str) -> str:
    # By its path, since the name of a model that is used where it lies leads nowhere.
    directory = shlex.quote(str(files.directory))
    return (
        f"The model {name!r} has no {precision.value} {part} graph, expected at "
        f"{str(files.graph(part, precision))!r}. Make it with: imagedex models quantize "
        f"{directory} --images DIR"
    )
