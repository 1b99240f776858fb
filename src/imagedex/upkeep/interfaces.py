"""What keeping states of indexes is to the edges."""

from __future__ import annotations

from typing import Protocol

from imagedex.core.errors import CorruptIndex
from imagedex.jobs import Job
from imagedex.segments import Snapshot


class SnapshotRequests(Protocol):
    """Takes requests about the snapshots of a running server's indexes.

    ``index_prefix`` None means the default index; OutsideIndexRoots and InvalidRequest otherwise.
    Safe to call from several threads.
    """

    def list(self, index_prefix: str | None = None) -> list[Snapshot | CorruptIndex]:
        """Return all snapshots of an index, oldest first, and after them why some cannot be read.

        Raises StorageError.
        """
        ...

    def create(
        self,
        name: str | None = None,
        *,
        index_prefix: str | None = None,
    ) -> tuple[Job, str]:
        """Request that the generation which is current then be kept; return the job and the name.

        Without a name it is called after the time and the generation. Raises NotFound where
        nothing was indexed, Conflict when the name is taken, InvalidRequest for what is no name.
        """
        ...

    def restore(
        self,
        name: str,
        *,
        index_prefix: str | None = None,
    ) -> Job:
        """Request that a snapshot become the current generation, before other jobs of the index.

        Raises NotFound, InvalidRequest, CorruptIndex when it cannot be read.
        """
        ...

    def delete(self, name: str, *, index_prefix: str | None = None) -> None:
        """Delete a snapshot. Raises NotFound, InvalidRequest, StorageError."""
        ...
