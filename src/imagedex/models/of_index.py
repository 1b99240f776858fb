"""Which model an index is served and extended by: the one that made its vectors."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from imagedex.core.errors import (
    FingerprintMismatch,
    InvalidRequest,
    ModelError,
    ModelNotInstalled,
)
from imagedex.core.fingerprints import ModelIdentity, way_back
from imagedex.embedding.runtimes import Precision
from imagedex.models.absent import AbsentModel

if TYPE_CHECKING:
    from imagedex.embedding import EmbeddingModel

_log = structlog.get_logger(__name__)


class IndexModels:
    """The models of indexes, one for each fingerprint. Safe to call from several threads."""

    def __init__(
        self, default: EmbeddingModel, find: Callable[[str, Precision], EmbeddingModel]
    ) -> None:
        """Take the model of new indexes, and what finds another one or raises ModelError."""
        self._default = default
        self._find = find
        self._known: dict[str, EmbeddingModel] = {}
        self._lock = threading.Lock()

    @property
    def default(self) -> EmbeddingModel:
        """The model of new indexes."""
        return self._default

    def named(self, name: str, precision: Precision | None) -> EmbeddingModel:
        """Return a model that an index can be given, and that is found again by its name.

        That is the default one, or one that is bundled, installed or offered by a package; without
        a precision in the default's own or in float32. Raises InvalidRequest for a path, ModelError
        when there is none, ModelNotInstalled when its files are not here.
        """
        own = ModelIdentity(self._default.name, self._default.fingerprint)
        if name == own.name and precision in (None, own.precision or Precision.FP32):
            model = self._default
        elif os.sep in name:
            raise InvalidRequest(
                f"{name!r} is a path, by which nobody would find the model again; install it by "
                "imagedex models pull NAME --from-dir DIR, and use it by that name."
            )
        else:
            model = self._find(name, precision or Precision.FP32)
        if isinstance(model, AbsentModel):
            model.load_text_encoder(threads=1)  # Raises ModelNotInstalled.
        return model

    def of(self, stored: ModelIdentity | None) -> EmbeddingModel:
        """Return the model that made the vectors of an index; None stands for a new one.

        Raises FingerprintMismatch, with what helps, when no model at hand makes such vectors;
        ModelNotInstalled when it is a known one of which too little is known without its files.
        """
        if stored is None or stored.fingerprint == self._default.fingerprint:
            return self._default
        with self._lock:
            known = self._known.get(stored.fingerprint)
            if known is not None:
                return known
            model = self._find_stored(stored)
            if not isinstance(model, AbsentModel):  # Which may be installed at any moment.
                self._known[stored.fingerprint] = model
                _log.info(
                    "index_keeps_its_model",
                    model=stored.name,
                    fingerprint=stored.fingerprint,
                    configured=self._default.name,
                    hint=f"to change it: imagedex models use {self._default.name}",
                )
            return model

    def _find_stored(self, stored: ModelIdentity) -> EmbeddingModel:
        try:
            model = self._find(stored.name, Precision(stored.precision or Precision.FP32))
        except ModelNotInstalled:
            raise
        except ModelError as error:
            raise self._mismatch(stored) from error
        if model.fingerprint != stored.fingerprint:
            raise self._mismatch(stored)
        return model

    def _mismatch(self, stored: ModelIdentity) -> FingerprintMismatch:
        used = ModelIdentity(self._default.name, self._default.fingerprint)
        return FingerprintMismatch(
            f"The index holds vectors of {stored}, which no model here makes; the one that is set "
            f"is {used}: {way_back(stored, used)}, or change its model by: imagedex models use."
        )
