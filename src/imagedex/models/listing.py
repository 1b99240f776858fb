"""All models that can be used here or could be, with what is known of each."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from imagedex.core.errors import ModelError
from imagedex.embedding.clip.files import find_model_files
from imagedex.embedding.runtimes import Precision
from imagedex.models.known import KNOWN_MODELS
from imagedex.models.records import InstalledModel
from imagedex.models.store import BUNDLED, ModelStore


class ModelState(StrEnum):
    """Whether a model can be used."""

    BUNDLED = "bundled"
    INSTALLED = "installed"
    DAMAGED = "damaged"
    NOT_INSTALLED = "not installed"


@dataclass(frozen=True, slots=True)
class ListedModel:
    """One line of the list."""

    name: str
    state: ModelState
    dim: int | None  # None when only its files would tell.
    bytes: int | None  # Of its installed files; None when there are none.
    precisions: tuple[Precision, ...]  # Those that its installed files allow.
    licence: str
    summary: str  # Why one would choose it; empty for models that are not known.
    problem: str | None = None  # What makes an installed model unusable.


def list_models(store: ModelStore) -> tuple[ListedModel, ...]:
    """Return the bundled model, the known ones, and what else is installed, in this order."""
    others = [name for name in store.names() if name not in KNOWN_MODELS]
    bundled = ListedModel(
        BUNDLED, ModelState.BUNDLED, _bundled_dim(), None, (Precision.FP32,), "Apache-2.0",
        "ships with Imagedex: small and fast, finds far less than CLIP",
    )  # fmt: skip
    return (bundled, *(_listed(name, store) for name in [*KNOWN_MODELS, *others]))


def _bundled_dim() -> int:
    from imagedex.embedding.bundled import BundledModel

    return BundledModel().dim


def _listed(name: str, store: ModelStore) -> ListedModel:
    known = KNOWN_MODELS.get(name)
    licence = known.licence if known is not None else "see where it came from"
    summary = known.summary if known is not None else ""
    dim = known.dim if known is not None else None
    state = ModelState.NOT_INSTALLED
    problem: str | None = None
    size: int | None = None
    precisions: tuple[Precision, ...] = ()
    try:
        installed = store.find(name)
        if installed is not None:
            dim = _dim(installed)
            state, size = ModelState.INSTALLED, sum(file.bytes for file in installed.lock.files)
            precisions = _precisions(installed)
    except ModelError as error:
        state, problem = ModelState.DAMAGED, str(error)
    return ListedModel(name, state, dim, size, precisions, licence, summary, problem)


def _dim(model: InstalledModel) -> int:
    from imagedex.embedding.clip import ClipModel

    return ClipModel.open(model.directory, name=model.name).dim


def _precisions(model: InstalledModel) -> tuple[Precision, ...]:
    files = find_model_files(model.directory)
    records = (files.int8_record("image"), files.int8_record("text"))
    made = (Precision.INT8,) if None not in records else ()
    # Both are computed from the float32 graph; whether this machine can is another question.
    return (Precision.FP32, Precision.BF16, *made)
