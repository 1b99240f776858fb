"""Which model a name means."""

from __future__ import annotations

import os
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, cast

from imagedex.core.errors import ModelError, ModelNotInstalled
from imagedex.embedding.runtimes import Precision, Runtime
from imagedex.models.known import KNOWN_MODELS
from imagedex.models.store import BUNDLED, ModelStore

if TYPE_CHECKING:
    from imagedex.embedding import EmbeddingModel

# Another package offers a model by an entry point of this group: its name is the model's, and it
# leads to a callable without arguments that returns an EmbeddingModel.
ENTRY_POINT_GROUP = "imagedex.embedding_models"


def find_model(
    name: str,
    *,
    store: ModelStore,
    precision: Precision = Precision.FP32,
    runtime: Runtime = Runtime.AUTO,
    reduced_decoding: bool = True,
) -> EmbeddingModel:
    """Return the model that ``name`` means, not loaded yet.

    ``name`` is ``bundled``, the name of an installed model, the path of a directory with a
    model's files (it has a slash), or the name by which another package offers one; in this
    order. Raises ModelError that says what can be done when there is none, or when it cannot
    run in this precision; ModelNotInstalled for a known one whose files are not here.
    """
    if name == BUNDLED:
        _require_fp32(name, precision)
        # Imported here, as below, so that naming a model does not import what others need.
        from imagedex.embedding.bundled import BundledModel

        return BundledModel()
    directory = model_directory(name, store)
    if directory is not None:
        from imagedex.embedding.clip import ClipModel

        return ClipModel.open(
            directory,
            name=directory.name,
            precision=precision,
            runtime=runtime,
            reduced_decoding=reduced_decoding,
        )
    for entry_point in entry_points(group=ENTRY_POINT_GROUP, name=name):
        _require_fp32(name, precision)
        return _offered(entry_point)
    if name in KNOWN_MODELS:
        raise ModelNotInstalled(_how_to_install(name))
    raise ModelError(_unknown(name, store))


def model_directory(name: str, store: ModelStore) -> Path | None:
    """Return the directory with the files of an installed model, or that ``name`` is the path of.

    None for what is neither. Raises ModelError when there is no directory at the path.
    """
    if os.sep not in name:
        installed = store.find(name)
        return installed.directory if installed is not None else None
    # Path.expanduser raises a bare error for a user that there is not; this leaves the name be.
    directory = Path(os.path.expanduser(name)).absolute()  # noqa: PTH111
    if not directory.is_dir():
        raise ModelError(
            f"There is no model directory {str(directory)!r}; check IMAGEDEX_MODEL, which is the "
            "name of a model or the path of a directory with its files."
        )
    return directory


def _require_fp32(name: str, precision: Precision) -> None:
    if precision is not Precision.FP32:
        raise ModelError(
            f"The model {name!r} has no precision but {Precision.FP32.value}; unset "
            "IMAGEDEX_EMBEDDING__PRECISION, or choose a CLIP model by IMAGEDEX_MODEL."
        )


def _offered(entry_point: EntryPoint) -> EmbeddingModel:
    try:
        return cast("EmbeddingModel", entry_point.load()())
    except Exception as error:  # It is other people's code, which can fail in any way.
        package = entry_point.dist.name if entry_point.dist is not None else entry_point.value
        raise ModelError(
            f"The model {entry_point.name!r} of the package {package!r} cannot be made: "
            f"{type(error).__name__}: {error}. Update or remove that package."
        ) from error


def _how_to_install(name: str) -> str:
    return (
        f"The model {name!r} is not installed. Get it by: "
        f"imagedex models pull {name}. Without a network, take its files from another machine "
        f"by: imagedex models pull {name} --from-dir DIR"
    )


def _unknown(name: str, store: ModelStore) -> str:
    offered = entry_points(group=ENTRY_POINT_GROUP).names
    names = sorted({BUNDLED, *store.names(), *KNOWN_MODELS, *offered})
    return (
        f"There is no model {name!r}. IMAGEDEX_MODEL can be the path of a directory with a "
        f"model's files, or one of: {', '.join(names)}."
    )
