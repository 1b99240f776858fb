"""Where the files of a CLIP model lie in its directory, in the two layouts of public hubs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from imagedex.core.errors import ModelError
from imagedex.embedding.clip.int8_record import Int8Record
from imagedex.embedding.runtimes import Part, Precision

Layout = Literal["immich", "transformers"]

# By layout and half: the graph first.
_HALVES: dict[Layout, dict[Part, tuple[str, ...]]] = {
    "immich": {
        "image": ("visual/model.onnx", "config.json", "visual/preprocess_cfg.json"),
        "text": ("textual/model.onnx", "textual/tokenizer.json"),
    },
    "transformers": {
        "image": ("onnx/vision_model.onnx", "config.json", "preprocessor_config.json"),
        "text": ("onnx/text_model.onnx", "tokenizer.json"),
    },
}


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """The files of a model; all of them exist."""

    directory: Path
    # Of the image half and the configuration. The text half can be of the other layout, where
    # another text tower was put beside the same images.
    layout: Layout
    config: Path
    image_graph: Path  # In float32, as ``text_graph`` is.
    image_preprocess: Path
    text_graph: Path
    tokenizer: Path
    tokenizer_config: Path | None

    def graph(self, part: Part, precision: Precision) -> Path:
        """Return where the graph of a half lies in a precision.

        bf16 is a way to run the float32 graph; int8 has a graph of its own, that a record names.
        Where there is none, the path is that of the missing record. Raises ModelError for a
        damaged one.
        """
        whole = self.image_graph if part == "image" else self.text_graph
        if precision is not Precision.INT8:
            return whole
        record = self.int8_record(part)
        return int8_record_path(whole) if record is None else record.graph(whole.parent)

    def int8_record(self, part: Part) -> Int8Record | None:
        """Return what is known of the int8 form of a half; None where it was not made.

        Raises ModelError for a damaged record.
        """
        return Int8Record.read(int8_record_path(self.graph(part, Precision.FP32)))


def int8_record_path(graph: Path) -> Path:
    """Return where the record of the int8 form of a float32 graph lies, or would lie."""
    # Hubs publish files named *_int8.* beside vision_model.onnx and text_model.onnx, which were
    # made without anybody's pictures; the name keeps ours and theirs apart.
    suffix = "int8" if graph.stem == "model" else "imagedex_int8"
    return graph.with_name(f"{graph.stem}_{suffix}.json")


def find_model_files(directory: Path) -> ModelFiles:
    """Return the files of the model in ``directory``.

    Raises ModelError that says what is missing and what was expected.
    """
    if not directory.is_dir():
        raise ModelError(
            f"There is no directory {str(directory)!r} to read a model from; see `imagedex "
            "models list` for the models that can be pulled."
        )
    layout, (image_graph, config, image_preprocess) = _find_half(directory, "image")
    _, (text_graph, tokenizer) = _find_half(directory, "text")
    tokenizer_config = tokenizer.with_name("tokenizer_config.json")
    return ModelFiles(
        directory=directory,
        layout=layout,
        config=config,
        image_graph=image_graph,
        image_preprocess=image_preprocess,
        text_graph=text_graph,
        tokenizer=tokenizer,
        tokenizer_config=tokenizer_config if tokenizer_config.is_file() else None,
    )


def _find_half(directory: Path, part: Part) -> tuple[Layout, tuple[Path, ...]]:
    layouts: tuple[Layout, ...] = ("immich", "transformers")
    for layout in layouts:
        paths = tuple(directory / name for name in _HALVES[layout][part])
        if not paths[0].is_file():
            continue
        if missing := [path for path in paths if not path.is_file()]:
            raise ModelError(
                f"The model in {str(directory)!r} lacks {_listed(directory, missing)}, expected "
                f"with {_HALVES[layout][part][0]}. Copy that from where the graphs came from, or "
                "pull the model again."
            )
        return layout, paths
    raise ModelError(
        f"{str(directory)!r} holds no {part} half of a CLIP model that Imagedex can read. Expected "
        f"are {' and '.join(_HALVES['immich'][part])}; or "
        f"{' and '.join(_HALVES['transformers'][part])}; the graphs in float32. `imagedex models "
        "export` makes the former from a Hugging Face checkpoint."
    )


def _listed(directory: Path, paths: list[Path]) -> str:
    return " and ".join(path.relative_to(directory).as_posix() for path in paths)
