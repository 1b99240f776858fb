"""Which files of a published repository a model needs.

Repositories carry the same weights many times over: in other precisions and for other runtimes.
Only the float32 graphs are taken, with the data files beside them, configuration and tokenizer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from imagedex.core.errors import ModelError
from imagedex.models.records import Half

# In layout one the two halves have a folder each, and graphs above 2 GB have their weights in
# further files of that folder, whose names can be anything.
_FOLDERS = {Half.IMAGE: "visual", Half.TEXT: "textual"}
_OTHER_RUNTIMES = (".armnn", ".rknn", ".tflite", ".mlmodel")
# The int8 form that was made on another machine. It is replaced when it is made here, so that it
# must not become one of the files that a lock file holds the model to.
_INT8_FORM = ("model_int8.json", "model_int8-")
_OTHER_TOKENIZERS = ("vocab.json", "merges.txt")
_OTHER_GRAPH = re.compile(r"(?!model\.onnx)[^/]*\.onnx([._]data.*)?")

# In layout two both graphs lie in one folder, with their data under names that begin alike.
_GRAPHS = {Half.IMAGE: "onnx/vision_model.onnx", Half.TEXT: "onnx/text_model.onnx"}
_SETTINGS = {
    Half.IMAGE: ("config.json", "preprocessor_config.json"),
    Half.TEXT: ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
}

_EXPECTED = (
    "config.json, visual/model.onnx, visual/preprocess_cfg.json, textual/model.onnx and "
    "textual/tokenizer.json; or preprocessor_config.json, tokenizer.json, onnx/vision_model.onnx "
    "and onnx/text_model.onnx"
)


def wanted_files(paths: Iterable[str], half: Half, *, where: str) -> tuple[str, ...]:
    """Return those of ``paths`` that a model needs, sorted.

    Raises ModelError when they are of neither layout, or one would lie outside the model's
    directory. ``where`` names the place in errors.
    """
    there = set(paths)
    halves = (Half.IMAGE, Half.TEXT) if half is Half.BOTH else (half,)
    wanted: set[str] = set()
    for one in halves:
        if f"{_FOLDERS[one]}/model.onnx" in there:
            wanted |= {path for path in there if _is_in_folder(path, _FOLDERS[one])}
            wanted |= {"config.json"} & there if one is Half.IMAGE else set()
        elif _GRAPHS[one] in there:
            wanted |= {path for path in there if _is_graph(path, _GRAPHS[one])}
            wanted |= set(_SETTINGS[one]) & there
        else:
            raise ModelError(
                f"{where} has no {one} half in a layout that Imagedex reads, which is either "
                f"{_EXPECTED}. Choose a repository or directory of ONNX files like that, or make "
                "one with: imagedex models export"
            )
    for path in wanted:
        _require_inside(path, where)
    return tuple(sorted(wanted))


def _is_in_folder(path: str, folder: str) -> bool:
    parent, _, name = path.rpartition("/")
    is_other = (
        name.endswith(_OTHER_RUNTIMES)
        or name in _OTHER_TOKENIZERS
        or name.startswith(_INT8_FORM)
        or _OTHER_GRAPH.fullmatch(name) is not None
    )
    return parent == folder and not is_other


def _is_graph(path: str, graph: str) -> bool:
    return path == graph or path.startswith((f"{graph}_data", f"{graph}.data"))


def _require_inside(path: str, where: str) -> None:
    """Refuse a name that leads out of the directory that it is put in, or that hides in it."""
    parts = path.split("/")
    is_plain = path.isprintable() and "\\" not in path and not PurePosixPath(path).is_absolute()
    if not is_plain or any(part in ("", ".", "..") or part.startswith(".") for part in parts):
        raise ModelError(
            f"{where} has a file named {path!r}, which is no plain name inside a directory; "
            "nothing was taken from there. Do not use it, and tell its owner."
        )
