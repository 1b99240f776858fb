"""Images of an index whose files are not there any more."""

# Image paths are strings here, as scandir and the kernel give them.

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from imagedex.catalog import Catalog
from imagedex.ingest import ImageRoots
from imagedex.jobs import JobPaused

_LOOKUP_IMAGES = 2000


@dataclass(frozen=True, slots=True)
class RemovalRules:
    """When a scan removes images from an index."""

    grace_seconds: float = 24 * 60 * 60.0  # From the first scan that missed the file.
    max_share: float = 0.1  # Of the directory's known images; above it, somebody is asked.


@dataclass(slots=True)
class Absences:
    """Images whose files are gone, by what is to become of them."""

    moved: list[str] = field(default_factory=list)  # Their content has come under another path.
    due: list[str] = field(default_factory=list)  # Their time of grace is over.
    waiting: int = 0


def is_gone(image_path: str) -> bool:
    """Say whether there is surely nothing under a path.

    A share that hangs or refuses is no proof.
    """
    try:
        os.lstat(image_path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def surely_gone(image_paths: Iterable[str], roots: ImageRoots) -> list[str]:
    """Return those paths under which there is nothing though their image root is there.

    A root that is empty may be a share that is not mounted, and one that is none any more is
    nobody's business.
    """
    gone: dict[str, list[str]] = defaultdict(list)
    for path in image_paths:
        if is_gone(path) and (root := roots.find_root(path)) is not None:
            gone[root].append(path)
    # The roots last: a share that goes away takes its files before anybody could see it.
    return [path for root, paths in gone.items() if roots.is_present(root) for path in paths]


def sort_out(
    missing_since: Mapping[str, float],
    catalog: Catalog,
    index_id: int,
    *,
    roots: ImageRoots,
    due_before: float,
    added: Collection[int],
) -> Absences:
    """Say what becomes of missing images; those that are back are left out.

    ``missing_since`` has the moment of the first scan that missed each, by path. ``added`` are the
    segments that the scan's job has made: an image of the same content there is where a missing one
    has gone. An older copy elsewhere says nothing, since the share of the missing one may be away.
    """
    absences = Absences()
    gone = surely_gone(missing_since, roots)
    for start in range(0, len(gone), _LOOKUP_IMAGES):
        known = catalog.lookup(index_id, gone[start : start + _LOOKUP_IMAGES])
        for path, entry in known.items():
            like = (
                catalog.contents_like(index_id, entry.stamp)
                if entry.stamp is not None and entry.content_hash is not None
                else ()
            )
            if any(
                content.content_hash == entry.content_hash and content.location.segment in added
                for content in like
            ):
                absences.moved.append(path)
            elif missing_since[path] <= due_before:
                absences.due.append(path)
            else:
                absences.waiting += 1
    return absences


def require_consent(
    due: Sequence[str], *, known: int, max_share: float, allowed: int | None, directory: str
) -> bool:
    """Say whether due images may be removed. Raises JobPaused when somebody must be asked.

    ``allowed`` is how many somebody has allowed: None when nobody was asked, 0 when refused.
    """
    if not due or allowed == 0:
        return False
    if len(due) <= max_share * known or (allowed is not None and len(due) <= allowed):
        return True
    raise JobPaused(
        f"{len(due):,} of the {known:,} images below {directory!r} are gone, the first is "
        f"{due[0]!r}: more than {max_share:.0%} (IMAGEDEX_INDEXING__REMOVAL_SHARE). Is a share "
        "not mounted? Confirm the job to remove them from the index, or refuse it to keep them.",
        removals=len(due),
    )
