"""Files of a hub over a real connection that breaks, lies or ends."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from imagedex.core.errors import ModelError, Unavailable
from imagedex.models._huggingface import HuggingFaceHub
from imagedex.models.download import download_file, left_to_come
from imagedex.models.records import RemoteFile
from support.model_hub import COMMIT, ModelHubServer, git_blob
from support.watching import RecordingWatcher

REPO = "someone/a-model"
CONTENT = np.random.default_rng(0).bytes(3_000_000)
NAME = "onnx/vision_model.onnx"
SMALL = b'{"a": 1}'


@pytest.fixture(autouse=True)
def _repository(server: ModelHubServer) -> None:
    server.add(REPO, {NAME: CONTENT, "config.json": SMALL})


def remote_file(hub: HuggingFaceHub, path: str = NAME) -> RemoteFile:
    return next(file for file in hub.list_files(REPO, COMMIT) if file.path == path)


def test_a_branch_means_a_commit_and_files_have_their_digests(hub: HuggingFaceHub) -> None:
    assert hub.resolve(REPO, "main") == COMMIT
    large, small = remote_file(hub), remote_file(hub, "config.json")
    assert large.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert (large.bytes, large.git_blob) == (len(CONTENT), None)
    assert (small.bytes, small.sha256, small.git_blob) == (len(SMALL), None, git_blob(SMALL))


def test_a_file_arrives_whole_and_nothing_is_left_beside_it(
    hub: HuggingFaceHub, tmp_path: Path, watcher: RecordingWatcher
) -> None:
    for path, content in ((NAME, CONTENT), ("config.json", SMALL)):
        download_file(hub, REPO, COMMIT, remote_file(hub, path), tmp_path / path, watcher)
        assert (tmp_path / path).read_bytes() == content
    assert watcher.arrived == len(CONTENT) + len(SMALL)
    assert sum(path.is_file() for path in tmp_path.rglob("*")) == 2


def test_a_file_that_is_there_is_not_asked_for_again(
    hub: HuggingFaceHub, server: ModelHubServer, tmp_path: Path, watcher: RecordingWatcher
) -> None:
    target = tmp_path / "file"
    target.write_bytes(CONTENT)
    download_file(hub, REPO, COMMIT, remote_file(hub), target, watcher)
    assert server.downloads == []
    assert watcher.arrived == len(CONTENT)
    assert left_to_come(remote_file(hub), target) == 0


def test_a_damaged_file_is_replaced(
    hub: HuggingFaceHub, tmp_path: Path, watcher: RecordingWatcher
) -> None:
    target = tmp_path / "file"
    target.write_bytes(CONTENT[:-1] + b"?")
    download_file(hub, REPO, COMMIT, remote_file(hub), target, watcher)
    assert target.read_bytes() == CONTENT


def test_a_cut_connection_is_taken_up_where_it_was_cut(
    hub: HuggingFaceHub, server: ModelHubServer, tmp_path: Path, watcher: RecordingWatcher
) -> None:
    server.cut_after[NAME] = 1_000_000
    download_file(hub, REPO, COMMIT, remote_file(hub), tmp_path / "file", watcher)
    assert (tmp_path / "file").read_bytes() == CONTENT
    first, second = server.began_at(NAME)
    assert (first, 0 < second <= 1_000_000) == (0, True)
    assert watcher.arrived == len(CONTENT)


def test_what_a_dead_process_has_brought_is_continued(
    hub: HuggingFaceHub, server: ModelHubServer, tmp_path: Path, watcher: RecordingWatcher
) -> None:
    target = tmp_path / "file"
    _begin(hub, target, CONTENT[:1_234_567])
    assert left_to_come(remote_file(hub), target) == len(CONTENT) - 1_234_567
    download_file(hub, REPO, COMMIT, remote_file(hub), target, watcher)
    assert target.read_bytes() == CONTENT
    assert server.began_at(NAME)[-1] == 1_234_567
    assert watcher.arrived == len(CONTENT)


def test_a_hub_that_cannot_continue_sends_the_file_from_its_start(
    hub: HuggingFaceHub, server: ModelHubServer, tmp_path: Path, watcher: RecordingWatcher
) -> None:
    target = tmp_path / "file"
    _begin(hub, target, CONTENT[:1000])
    server.has_ranges = False
    download_file(hub, REPO, COMMIT, remote_file(hub), target, watcher)
    assert target.read_bytes() == CONTENT
    assert watcher.arrived == len(CONTENT)


@pytest.mark.parametrize("beginning", [bytes(1000), CONTENT + b"more", bytes(len(CONTENT))])
def test_a_beginning_that_a_power_cut_spoilt_is_not_trusted(
    hub: HuggingFaceHub,
    server: ModelHubServer,
    tmp_path: Path,
    watcher: RecordingWatcher,
    beginning: bytes,
) -> None:
    target = tmp_path / "file"
    _begin(hub, target, beginning)
    download_file(hub, REPO, COMMIT, remote_file(hub), target, watcher)
    assert target.read_bytes() == CONTENT
    assert watcher.arrived == len(CONTENT)


@pytest.mark.parametrize("path", [NAME, "config.json"])
def test_other_content_than_the_hub_lists_is_refused_and_thrown_away(
    hub: HuggingFaceHub,
    server: ModelHubServer,
    tmp_path: Path,
    watcher: RecordingWatcher,
    path: str,
) -> None:
    true = server.repos[REPO][COMMIT][path]
    server.forged[path] = true[:-1] + b"?"
    target = tmp_path / "file"
    with pytest.raises(ModelError, match=r"is not what it should be: its (SHA-256|git blob)"):
        download_file(hub, REPO, COMMIT, remote_file(hub, path), target, watcher)
    assert list(tmp_path.iterdir()) == []
    assert watcher.arrived == 0


def test_a_digest_that_is_known_here_counts_as_well(
    hub: HuggingFaceHub, tmp_path: Path, watcher: RecordingWatcher
) -> None:
    file = replace(remote_file(hub, "config.json"), sha256="0" * 64)
    with pytest.raises(ModelError, match=f"not {'0' * 64}"):
        download_file(hub, REPO, COMMIT, file, tmp_path / "file", watcher)


def test_unknown_repositories_revisions_and_files_are_named(
    hub: HuggingFaceHub, tmp_path: Path, watcher: RecordingWatcher
) -> None:
    with pytest.raises(ModelError, match="no repository 'someone/else'"):
        hub.resolve("someone/else", "main")
    with pytest.raises(ModelError, match="no revision '333'"):
        hub.resolve(REPO, "333")
    with pytest.raises(ModelError, match="no name of a repository"):
        hub.resolve("a//b", "main")
    file = replace(remote_file(hub), path="gone.onnx")
    with pytest.raises(ModelError, match="lists a file"):
        download_file(hub, REPO, COMMIT, file, tmp_path / "file", watcher)


def test_a_hub_that_fails_or_is_away_may_be_asked_again(
    hub: HuggingFaceHub, server: ModelHubServer
) -> None:
    server.fails_with = 503
    with pytest.raises(Unavailable, match="answered 503"):
        hub.resolve(REPO, "main")
    with pytest.raises(Unavailable, match="cannot be reached"):
        HuggingFaceHub("http://127.0.0.1:9").resolve(REPO, "main")


def _begin(hub: HuggingFaceHub, target: Path, beginning: bytes) -> None:
    """Leave behind what a process that died in the middle of a download does."""
    file = remote_file(hub)
    assert file.sha256 is not None
    target.with_name(f"{target.name}.{file.sha256[:16]}.part").write_bytes(beginning)


def test_a_server_that_goes_on_sending_does_not_fill_the_disk(
    hub: HuggingFaceHub, server: ModelHubServer, tmp_path: Path, watcher: RecordingWatcher
) -> None:
    server.forged[NAME] = CONTENT * 5
    with pytest.raises(ModelError, match="More than the 3,000,000 bytes"):
        download_file(hub, REPO, COMMIT, remote_file(hub), tmp_path / "file", watcher)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= len(CONTENT)
