"""What all services of one process stand on."""

from __future__ import annotations

import copy
import os
import secrets
import socket
from functools import lru_cache, partial
from pathlib import Path

from imagedex.app.models import decode_limits, model_or_its_description, model_to_serve
from imagedex.catalog import Catalog, SqlCatalog
from imagedex.core.errors import OwnershipLost
from imagedex.core.fingerprints import ModelIdentity
from imagedex.database import Database, FileOwnership, Ownership, SharedOwnership, Transaction
from imagedex.embedding import EmbeddingModel
from imagedex.indexing import IndexLocations, IndexTurns, Pace
from imagedex.ingest import ImageRoots
from imagedex.jobs import JobStore, SqlJobStore
from imagedex.models import IndexModels
from imagedex.segments import DirectoryIndexFiles, IndexFiles, IvfPolicy
from imagedex.settings import Settings

_MAX_OPEN_INDEXES = 256


class Foundations:
    """Stores, indexes and models, as the settings say; nothing is opened yet.

    Raises ModelError for a model of which nothing is known.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.database = Database(settings.effective_database_url)
        self.ownership = ownership_of(self.database, settings)
        self.catalog: Catalog = SqlCatalog(self.database)
        self._job_store = SqlJobStore(self.database, lease_seconds=settings.indexing.lease_seconds)
        self.jobs: JobStore = self._job_store
        self.pace = Pace(self.jobs, target_seconds=settings.indexing.chunk_seconds)
        self.locations = IndexLocations(settings.effective_index_prefix, settings.index_roots)
        self.image_roots = ImageRoots(settings.image_roots)
        self.limits = decode_limits(settings)
        self.model: EmbeddingModel = model_to_serve(settings)
        self.models = IndexModels(self.model, partial(model_or_its_description, settings))
        self.turns = IndexTurns()
        ivf = IvfPolicy(
            min_rows=settings.search.ivf_min_rows,
            min_recall=settings.search.min_recall,
            flat_min_rows=settings.search.flat_min_rows,
        )
        # One object for each index, since it remembers the manifest that it has read.
        self._open_files = lru_cache(maxsize=_MAX_OPEN_INDEXES)(
            partial(DirectoryIndexFiles, ivf=ivf, term=self.term)
        )

    def term(self) -> int:
        """Return the term in which this process publishes."""
        return self.ownership.term

    def owned(self) -> Foundations:
        """Return what the owner of the jobs stands on, from its taking them over to its end.

        The same, but that nothing is recorded any more once another has taken them over, and that
        nothing is remembered of who publishes what.
        """
        owned = copy.copy(self)
        owned.database = self.database.guarded(partial(self._require_term, self.ownership.term))
        owned.catalog = SqlCatalog(owned.database)
        owned.jobs = self._job_store.over(owned.database)
        owned.turns = IndexTurns()
        return owned

    def _require_term(self, term: int, transaction: Transaction) -> None:
        """Refuse also what outlives its term here: this process may lead again, in a later one."""
        if self.ownership.term != term:
            raise OwnershipLost(
                f"Term {term} of this controller has ended; nothing more of it is recorded."
            )
        self.ownership.require_held(transaction)

    def files_of(self, index_prefix: Path) -> IndexFiles:
        """Return the files of an index."""
        return self._open_files(index_prefix)

    def model_of(self, index_prefix: Path) -> EmbeddingModel:
        """Return the model of an index; that of the settings for one that is new."""
        manifest = self.files_of(index_prefix).current()
        if manifest is None:
            return self.models.of(None)
        return self.models.of(ModelIdentity(manifest.model_name, manifest.fingerprint))


def ownership_of(database: Database, settings: Settings) -> Ownership:
    """Return the ownership of a database, which is not taken yet."""
    if not database.is_shared:
        return FileOwnership(database)
    # Unlike every other process, and every other life of this one.
    life = f"{socket.gethostname()}:{settings.home}:{os.getpid()}:{secrets.token_hex(4)}"
    server = settings.server
    return SharedOwnership(database, holder=life, url=f"http://{server.host}:{server.port}")
