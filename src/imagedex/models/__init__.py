"""The register of models: which there are, where they come from, which are installed."""

from imagedex.models.absent import AbsentModel, absent_model
from imagedex.models.find import ENTRY_POINT_GROUP, find_model
from imagedex.models.known import KNOWN_MODELS
from imagedex.models.of_index import IndexModels
from imagedex.models.records import FileFault, HubSource, InstalledModel, KnownModel
from imagedex.models.store import ModelStore

__all__ = [
    "ENTRY_POINT_GROUP",
    "KNOWN_MODELS",
    "AbsentModel",
    "FileFault",
    "HubSource",
    "IndexModels",
    "InstalledModel",
    "KnownModel",
    "ModelStore",
    "absent_model",
    "find_model",
]
