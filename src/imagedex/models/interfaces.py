"""What a place that publishes models is to this room, and who is told how a pull goes on."""

from __future__ import annotations

from typing import BinaryIO, Protocol

from imagedex.models.records import RemoteFile


class ModelHub(Protocol):
    """A place that publishes repositories of models.

    All calls raise ModelError when the hub says no (there is no such repository, revision or
    file, or it is closed), and Unavailable when it cannot be reached or fails.
    """

    def resolve(self, repo: str, revision: str) -> str:
        """Return the commit that a branch, tag or shortened commit means now."""
        ...

    def list_files(self, repo: str, commit: str) -> tuple[RemoteFile, ...]:
        """Return all files of a repository at a commit."""
        ...

    def download(self, repo: str, commit: str, file: RemoteFile, into: BinaryIO) -> None:
        """Append what ``into`` still lacks of a file.

        The stream stands at its end and holds the file's first bytes, or none. When the hub
        cannot continue there, the stream is truncated and the file comes from its start. A cut
        connection is taken up again for a while. What ``into`` raises passes through.
        """
        ...

    def address(self, repo: str, commit: str, path: str) -> str:
        """Return where a browser finds a file."""
        ...


class PullWatcher(Protocol):
    """Who is told how a pull goes on. Called in the thread that pulls."""

    def note(self, text: str) -> None:
        """Tell something that the operator may want to know."""
        ...

    def begin(self, total_bytes: int) -> None:
        """Tell that so many bytes are to be there in the end."""
        ...

    def advance(self, count: int) -> None:
        """Tell that ``count`` more bytes are there; negative when some had to be dropped."""
        ...
