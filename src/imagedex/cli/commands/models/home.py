"""The models of the home that the settings name."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imagedex.models import ModelStore
    from imagedex.settings import Settings


def model_store(settings: Settings) -> ModelStore:
    """Return the store of the home, which need not be there."""
    from imagedex.models import ModelStore

    return ModelStore(settings.models_directory)


def writable_model_store(settings: Settings) -> ModelStore:
    """Return the store of the home, which is made when it is not there. Raises SettingsError."""
    from imagedex.database import prepare_home

    prepare_home(settings.home)
    return model_store(settings)
