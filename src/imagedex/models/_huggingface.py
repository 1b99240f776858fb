"""The one place that talks to a Hugging Face hub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from huggingface_hub import HfApi, RepoFile, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import (  # type: ignore[attr-defined] # Public, but not by __all__.
    are_progress_bars_disabled,
    build_hf_headers,
    disable_progress_bars,
    enable_progress_bars,
)

from imagedex.core.errors import ImagedexError, ModelError, Unavailable
from imagedex.models.records import RemoteFile


class HuggingFaceHub:
    """The hub at ``endpoint``; without one, that of HF_ENDPOINT or huggingface.co.

    HF_TOKEN, HF_HUB_OFFLINE and the proxy variables are obeyed, as huggingface_hub does.
    """

    def __init__(self, endpoint: str | None = None) -> None:
        self._api = HfApi(endpoint=endpoint)

    def resolve(self, repo: str, revision: str) -> str:
        """Return the commit that a branch, tag or shortened commit means now."""
        with self._hub_errors(repo, revision):
            commit = self._api.model_info(repo, revision=revision).sha
        if not commit:
            raise ModelError(
                f"{self._api.endpoint} names no commit for {repo} at {revision!r}; check that it "
                "is a Hugging Face hub (HF_ENDPOINT)."
            )
        return commit

    def list_files(self, repo: str, commit: str) -> tuple[RemoteFile, ...]:
        """Return all files of a repository at a commit."""
        with self._hub_errors(repo, commit):
            entries = list(self._api.list_repo_tree(repo, revision=commit, recursive=True))
        return tuple(_remote_file(entry) for entry in entries if isinstance(entry, RepoFile))

    def download(self, repo: str, commit: str, file: RemoteFile, into: BinaryIO) -> None:
        """Append what ``into`` still lacks of a file."""
        # Not hf_hub_download: it gives each download a file of its own, which is gone when the
        # download fails and is never continued when the process dies.
        if into.tell() == file.bytes:
            return
        with self._hub_errors(repo, commit), _without_progress_bars():
            http_get(
                self.address(repo, commit, file.path),
                into,
                resume_size=into.tell(),
                # Compressed on its way, a file has other byte positions than the one here.
                headers={**build_hf_headers(), "Accept-Encoding": "identity"},
            )

    def address(self, repo: str, commit: str, path: str) -> str:
        """Return where a browser finds a file."""
        return hf_hub_url(repo, path, revision=commit, endpoint=self._api.endpoint)

    @contextmanager
    def _hub_errors(self, repo: str, revision: str) -> Iterator[None]:
        """Turn what huggingface_hub raises inside the block into errors of this project."""
        endpoint = self._api.endpoint
        try:
            yield
        except ImagedexError:
            raise
        except GatedRepoError as error:
            raise ModelError(
                f"{endpoint}/{repo} is open only to those who accepted its terms: do that on its "
                "page, and set HF_TOKEN to a token of yours."
            ) from error
        except RepositoryNotFoundError as error:
            raise ModelError(
                f"There is no repository {repo!r} at {endpoint}, or it is private; check the "
                "name, and HF_TOKEN if it is yours."
            ) from error
        except RevisionNotFoundError as error:
            raise ModelError(
                f"{endpoint}/{repo} has no revision {revision!r}; choose another one by "
                "--revision. Its page lists them under 'Files and versions', 'History'."
            ) from error
        except RemoteEntryNotFoundError as error:
            raise ModelError(
                f"{endpoint}/{repo} lists a file at {revision!r} that it does not have; choose "
                "another revision by --revision."
            ) from error
        except HFValidationError as error:
            raise ModelError(f"{repo!r} is no name of a repository: {error}") from error
        except OfflineModeIsEnabled as error:
            raise Unavailable(
                f"{endpoint} was not asked, because HF_HUB_OFFLINE is set; unset it."
            ) from error
        except HfHubHTTPError as error:
            raise Unavailable(
                f"{endpoint} answered {error.response.status_code} for {repo} at {revision!r}; "
                "try again later."
            ) from error
        except Exception as error:
            # Whatever the HTTP library below huggingface_hub raises: it is another one in each
            # of its major versions, so its classes cannot be named here.
            raise Unavailable(
                f"{endpoint} cannot be reached for {repo} ({type(error).__name__}: {error}); "
                "check the network, HTTPS_PROXY and HF_ENDPOINT, and try again."
            ) from error


def _remote_file(entry: RepoFile) -> RemoteFile:
    # The git blob of a large file is that of the pointer which stands for it in git.
    if entry.lfs is not None:
        return RemoteFile(entry.path, entry.lfs.size, entry.lfs.sha256, None)
    return RemoteFile(entry.path, entry.size, None, entry.blob_id)


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    """Keep the library's own bars away during the block; the watcher of a pull has one."""
    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()
