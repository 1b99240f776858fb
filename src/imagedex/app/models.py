"""The models and limits that the settings choose."""

from __future__ import annotations

import os

from imagedex.core.errors import ModelNotInstalled
from imagedex.embedding import EmbeddingModel
from imagedex.embedding.runtimes import Precision
from imagedex.ingest import DecodeLimits
from imagedex.models import ModelStore, absent_model, find_model
from imagedex.settings import Settings


def choose_model(settings: Settings) -> EmbeddingModel:
    """Return the model that the settings name, not loaded yet. Raises ModelError."""
    return _named_model(settings, settings.model, settings.embedding.precision)


def model_to_serve(settings: Settings) -> EmbeddingModel:
    """Return the model that the settings name, even if it is a known one without its files.

    An index of it can be served all the same: to load either half is what fails then, with
    ModelNotInstalled. Raises ModelError.
    """
    return model_or_its_description(settings, settings.model, settings.embedding.precision)


def stored_space(settings: Settings, name: str) -> EmbeddingModel:
    """Return the model of this name as the old scripts ran it: in float32, installed or not.

    Raises ModelError for one of which nothing is known.
    """
    return model_or_its_description(settings, name, Precision.FP32)


def model_or_its_description(settings: Settings, name: str, precision: Precision) -> EmbeddingModel:
    """Return a model by its name, or what is known of one that is not installed.

    Raises ModelError for one of which nothing is known.
    """
    try:
        return _named_model(settings, name, precision)
    except ModelNotInstalled:
        model = absent_model(name, precision=precision, reduced_decoding=settings.decoding.reduced)
        if model is None:
            raise
        return model


def _named_model(settings: Settings, name: str, precision: Precision) -> EmbeddingModel:
    return find_model(
        name,
        store=ModelStore(settings.models_directory),
        precision=precision,
        runtime=settings.embedding.runtime,
        reduced_decoding=settings.decoding.reduced,
    )


def decode_limits(settings: Settings) -> DecodeLimits:
    """Return what one picture may cost."""
    decoding = settings.decoding
    return DecodeLimits(
        max_file_bytes=decoding.max_file_bytes,
        max_pixels=decoding.max_pixels,
        timeout_seconds=decoding.timeout_seconds,
        memory_bytes=decoding.memory_bytes,
    )


def search_threads(settings: Settings) -> int:
    """Return how many cores answer one query."""
    # Containers and taskset allow fewer cores than the machine has.
    return settings.search.threads or len(os.sched_getaffinity(0))
