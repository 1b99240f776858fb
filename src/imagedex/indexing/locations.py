"""Which index prefixes a request may name."""

from __future__ import annotations

import os
from pathlib import Path

from imagedex.core.errors import InvalidRequest, OutsideIndexRoots


class IndexLocations:
    """The default index, and the directories below which others may lie."""

    def __init__(self, default: Path, roots: tuple[Path, ...]) -> None:
        self._default = default
        self._roots = tuple(Path(os.path.realpath(root)) for root in roots)

    def resolve(self, index_prefix: str | None) -> Path:
        """Return the directory that the request means.

        Raises InvalidRequest for what is no absolute path, OutsideIndexRoots for a path that
        is neither the default index nor, with its links resolved, below an index root.
        """
        if index_prefix is None or index_prefix == str(self._default):
            return self._default
        if "\0" in index_prefix or not index_prefix.startswith("/"):
            raise InvalidRequest(
                f"index_prefix {index_prefix!r} is not an absolute path; "
                "name a directory such as /srv/imagedex/holidays, or leave it out."
            )
        path = Path(os.path.normpath(index_prefix))
        if path == self._default:
            return self._default
        real = Path(os.path.realpath(path))
        if any(real != root and real.is_relative_to(root) for root in self._roots):
            return path
        raise OutsideIndexRoots(
            f"index_prefix {index_prefix!r} is neither the default index nor below an index root; "
            "the operator can add its directory to IMAGEDEX_INDEX_ROOTS."
        )
