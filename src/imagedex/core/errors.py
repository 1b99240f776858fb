"""Everything that Imagedex raises on purpose.

ImagedexError
├── SettingsError             the settings cannot be used
├── HomeInUse                 another process owns this home
├── InvalidRequest            the request makes no sense as it stands
├── PermissionDenied          the caller may not do this
│   ├── OutsideImageRoots     a path outside every image root
│   └── OutsideIndexRoots     an index prefix outside what the operator allows
├── AuthenticationFailed      no key, or one that is not known
├── NotFound                  no such job, image or key
├── CursorExpired             the state of the index that a cursor leads through is gone
├── Conflict                  the state of things forbids it now
│   ├── FingerprintMismatch   the index was made with another model
│   ├── LeaseLost             another owner has taken over the job or the index
│   │   └── OwnershipLost     another controller has taken over all jobs
│   └── Superseded            what was prepared no longer fits; prepare it anew
├── Unavailable               not now; try again later
│   ├── HostUnreachable       a host of workers does not answer
│   └── NoWorkers             no worker has been connected for long
├── HostRefused               a host of workers lets us in no further
├── ModelError                a model's files are missing, damaged or of no use
│   └── ModelNotInstalled     a known model is named, and its files are not here
├── EngineError               a chunk could not be run
│   ├── UnfitWorker           the worker's host lacks what the chunk needs
│   ├── WorkerLost            its worker went away while it ran
│   └── ChunkStopped          it was told to stop
└── StorageError              the index's files could not be read or written
    └── CorruptIndex          a file of the index is not what its manifest says

``retryable`` says whether the same call can succeed later without anybody changing it.
"""

from __future__ import annotations

from typing import ClassVar


class ImagedexError(Exception):
    """Base of all errors that Imagedex raises on purpose; its text is fit for an operator."""

    retryable: ClassVar[bool] = False


class SettingsError(ImagedexError):
    """The settings cannot be used; the text names the setting and what it should be."""


class HomeInUse(ImagedexError):
    """Another process owns this home; talk to it over the API or stop it first."""


class InvalidRequest(ImagedexError):
    """The request makes no sense as it stands; correct what the text names."""


class PermissionDenied(ImagedexError):
    """The caller is known but may not do this; ask for a key with the scope that is named."""


class OutsideImageRoots(PermissionDenied):
    """The path lies outside every image root; add its directory to ``IMAGEDEX_IMAGE_ROOTS``."""


class OutsideIndexRoots(PermissionDenied):
    """The index prefix is not allowed; add its directory to ``IMAGEDEX_INDEX_ROOTS``."""


class AuthenticationFailed(ImagedexError):
    """There is no key in the request, or one that is not known; send a valid key."""


class NotFound(ImagedexError):
    """There is no such thing; check the id."""


class CursorExpired(ImagedexError):
    """The pages of a query cannot go on; ask again from the first one."""


class Conflict(ImagedexError):
    """The state of things forbids it now; the text says which state and what would change it."""


class FingerprintMismatch(Conflict):
    """The index holds vectors of another model; use that model or another index prefix."""


class LeaseLost(Conflict):
    """Another owner has taken over; stop at once and write nothing more."""


class OwnershipLost(LeaseLost):
    """Another controller has taken over all jobs of the database, or may have; stop them."""


class Superseded(Conflict):
    """The index was changed in a way that what was prepared no longer fits; prepare it anew."""

    retryable = True


class Unavailable(ImagedexError):
    """It cannot be done now, but the same call can succeed later."""

    retryable = True


class HostUnreachable(Unavailable):
    """A host of workers cannot be reached, or no longer; it is tried again by itself."""


class HostRefused(ImagedexError):
    """A host of workers is not who it should be, or refuses; the text says what to put right."""


class NoWorkers(Unavailable):
    """No worker has been connected for long; the text says what is known of them."""


class ModelError(ImagedexError):
    """A model's files are missing, damaged or of no use; the text says how to get good ones."""


class ModelNotInstalled(ModelError):
    """The model is known but its files are not here; the text has the command that gets them.

    Its text names no path, so that it can be shown to whoever asks.
    """


class EngineError(ImagedexError):
    """A chunk could not be run: its worker died, or there is none. Running it again can help."""

    retryable = True


class UnfitWorker(EngineError):
    """The worker's host lacks a share or a model, or has another; the chunk can run elsewhere."""


class WorkerLost(EngineError):
    """The worker went away under a chunk; what else it ran tells whether the chunk may be why."""

    def __init__(
        self,
        text: str,
        *,
        worker_id: str = "",
        host: str = "",
        has_begun: bool = True,
        was_alone: bool = False,
        images_done: int = 0,
        in_hand: tuple[str, ...] = (),
    ) -> None:
        super().__init__(text)
        self.worker_id = worker_id
        self.host = host
        self.has_begun = has_begun  # Otherwise the chunk had not reached it, and is not why.
        self.was_alone = was_alone  # No other chunk was on the worker when it went away.
        self.images_done = images_done  # As the worker said last,
        self.in_hand = in_hand  # with the paths of those that it was about to work on.


class ChunkStopped(EngineError):
    """The chunk was told to stop, and ended before it was done; nothing of it counts."""

    retryable = False


class StorageError(ImagedexError):
    """The index's files could not be read or written: full disk, lost share, no permission."""

    retryable = True


class CorruptIndex(StorageError):
    """A file of the index is not what its manifest says; restore it or use another prefix."""

    retryable = False
