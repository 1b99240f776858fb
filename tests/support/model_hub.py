"""A hub of models on loopback: the part of Hugging Face's HTTP API that a pull needs."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

Files = dict[str, bytes]

COMMIT = "1" * 40
OTHER_COMMIT = "2" * 40
_BLOCK = 64 * 1024


def git_blob(content: bytes) -> str:
    """Return the name that git gives to a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def read_files(directory: Path) -> Files:
    """Return the files below a directory, as a repository."""
    paths = (path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in paths}


@dataclass
class ModelHubServer:
    """What the hub has, what goes wrong with it, and what it was asked for."""

    url: str = ""
    # By repository and commit. The branch main is the last commit of a repository.
    repos: dict[str, dict[str, Files]] = field(default_factory=dict)
    # Served instead of the true content, which the listings still describe.
    forged: Files = field(default_factory=dict)
    # Connections are cut after so many bytes of a file, once.
    cut_after: dict[str, int] = field(default_factory=dict)
    # A file's connection stays silent after so many bytes, until ``flow`` is set.
    stalls_after: dict[str, int] = field(default_factory=dict)
    flow: threading.Event = field(default_factory=threading.Event)
    has_ranges: bool = True
    fails_with: int | None = None  # A status for every call.
    downloads: list[tuple[str, int]] = field(default_factory=list)  # Path, and where it began.

    def add(self, repo: str, files: Mapping[str, bytes], commit: str = COMMIT) -> None:
        """Add a commit to a repository."""
        self.repos.setdefault(repo, {})[commit] = dict(files)

    def began_at(self, path: str) -> list[int]:
        """Return at which byte each download of a file began, in order."""
        return [start for name, start in self.downloads if name == path]

    def commit_of(self, repo: str, revision: str) -> str | None:
        """Return the commit that a revision means."""
        commits = self.repos[repo]
        return (
            list(commits)[-1] if revision == "main" else revision if revision in commits else None
        )


@contextmanager
def model_hub() -> Iterator[ModelHubServer]:
    """Run a hub without repositories until the block ends."""
    hub = ModelHubServer()

    class Handler(_Handler):
        served = hub

    with _Server(("127.0.0.1", 0), Handler) as server:
        hub.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield hub
        finally:
            hub.flow.set()
            server.shutdown()
            thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Write nothing: clients that die in the middle are what tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    served: ModelHubServer

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - so named there.
        """Write nothing."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        if self.served.fails_with is not None:
            self._answer(self.served.fails_with, b"")
        elif parts[:2] == ["api", "models"]:
            self._describe("/".join(parts[2:4]), parts[4], parts[5])
        else:
            self._send_file("/".join(parts[:2]), parts[3], "/".join(parts[4:]))

    def _describe(self, repo: str, what: str, revision: str) -> None:
        commit = self._commit(repo, revision)
        if commit is None:
            return
        files = self.served.repos[repo][commit]
        answer: Any = {"id": repo, "sha": commit}
        if what == "tree":
            answer = [_entry(path, content) for path, content in files.items()]
        self._answer(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _send_file(self, repo: str, revision: str, path: str) -> None:
        commit = self._commit(repo, revision)
        if commit is None:
            return
        content = self.served.forged.get(path, self.served.repos[repo][commit].get(path))
        if content is None:
            self._answer(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        asked = self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").split("-")[0]) if asked else 0
        start = start if self.served.has_ranges else 0
        self.served.downloads.append((path, start))
        self.send_response(206 if start else 200)
        if start:
            last = len(content) - 1
            self.send_header("Content-Range", f"bytes {start}-{last}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self._send(path, content, start)

    def _send(self, path: str, content: bytes, start: int) -> None:
        cut = self.served.cut_after.pop(path, None)
        stall = self.served.stalls_after.get(path)
        for position in range(start, len(content) if cut is None else cut, _BLOCK):
            if stall is not None and position >= stall:
                self.served.flow.wait()
            self.wfile.write(content[position : min(position + _BLOCK, cut or len(content))])
        self.close_connection = cut is not None

    def _commit(self, repo: str, revision: str) -> str | None:
        """Return the commit, or answer that there is none."""
        if repo not in self.served.repos:
            self._answer(404, b"", {"X-Error-Code": "RepoNotFound"})
            return None
        commit = self.served.commit_of(repo, revision)
        if commit is None:
            self._answer(404, b"", {"X-Error-Code": "RevisionNotFound"})
        return commit

    def _answer(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def _entry(path: str, content: bytes) -> dict[str, Any]:
    """Describe a file; large ones as those that git keeps a pointer of."""
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content)}
    if not path.endswith((".onnx", ".bin", "tokenizer.json")):
        return {**entry, "oid": git_blob(content)}
    lfs = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
    return {**entry, "oid": git_blob(b"pointer of " + path.encode()), "lfs": lfs}
