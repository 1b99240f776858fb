"""Models from a hub to a home, whatever happens on the way."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imagedex.core.errors import (
    Conflict,
    InvalidRequest,
    ModelError,
    NotFound,
    StorageError,
    Unavailable,
)
from imagedex.embedding.clip.lock_file import LockedSource
from imagedex.models import HubSource, KnownModel, ModelStore, find_model
from imagedex.models._huggingface import HuggingFaceHub
from imagedex.models.pull import install_directory, published_model, pull_model
from imagedex.models.records import Half
from imagedex.models.verification import file_faults
from support.model_hub import COMMIT, OTHER_COMMIT, ModelHubServer, read_files
from support.tiny_models import Layout, write_tiny_clip
from support.watching import RecordingWatcher

REPO = "someone/tiny-clip"
MODEL = KnownModel("tiny", "small", 32, "MIT", (HubSource(REPO, COMMIT),))
LAYOUTS: tuple[Layout, ...] = ("immich", "transformers")
IMAGE_GRAPH = "visual/model.onnx"


@pytest.fixture
def tiny(tmp_path: Path, server: ModelHubServer) -> Path:
    directory = write_tiny_clip(tmp_path / "published")
    server.add(REPO, read_files(directory))
    return directory


def assert_nothing_is_installed(store: ModelStore) -> None:
    assert store.names() == ()
    visible = [path for path in store.directory.iterdir() if not path.name.startswith(".")]
    assert visible == []


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_pulled_model_can_be_used_and_is_locked(
    tmp_path: Path,
    server: ModelHubServer,
    hub: HuggingFaceHub,
    store: ModelStore,
    watcher: RecordingWatcher,
    layout: Layout,
) -> None:
    directory = write_tiny_clip(tmp_path / "published", layout)
    files = read_files(directory)
    server.add(REPO, {**files, "README.md": b"# Tiny", "onnx/vision_model_fp16.onnx": b"x"})
    model = pull_model(MODEL, store=store, hub=hub, watcher=watcher)
    assert model.directory == store.directory / "tiny"
    assert model.lock.sources == (LockedSource(REPO, COMMIT),)
    assert model.lock.text_axis is not None
    assert {file.path for file in model.lock.files} == set(files)
    assert list(file_faults(model)) == []
    assert watcher.total == watcher.arrived == sum(map(len, files.values()))
    found = find_model("tiny", store=store)
    picture = found.preprocess(Image.new("RGB", (64, 48), "red"))
    vectors = found.load_image_encoder(threads=1).encode_images(picture[np.newaxis])
    assert vectors.shape == (1, 32)
    assert found.fingerprint == find_model(str(directory), store=store).fingerprint


def test_a_model_that_is_installed_is_not_asked_for_again(
    tiny: Path,
    server: ModelHubServer,
    hub: HuggingFaceHub,
    store: ModelStore,
    watcher: RecordingWatcher,
) -> None:
    first = pull_model(MODEL, store=store, hub=hub, watcher=watcher)
    server.fails_with = 500
    assert pull_model(MODEL, store=store, hub=hub, watcher=watcher) == first
    assert "installed already" in watcher.notes[-1]


def test_a_model_can_be_pulled_again_by_force(
    tiny: Path, hub: HuggingFaceHub, store: ModelStore, watcher: RecordingWatcher
) -> None:
    model = pull_model(MODEL, store=store, hub=hub, watcher=watcher)
    (model.directory / "config.json").unlink()
    model = pull_model(MODEL, store=store, hub=hub, watcher=watcher, force=True)
    assert list(file_faults(model)) == []
    assert store.names() == ("tiny",)


def test_a_source_without_a_revision_is_taken_at_the_commit_of_today(
    tiny: Path,
    server: ModelHubServer,
    hub: HuggingFaceHub,
    store: ModelStore,
    watcher: RecordingWatcher,
) -> None:
    server.add(REPO, read_files(tiny), OTHER_COMMIT)
    model = pull_model(published_model(REPO), store=store, hub=hub, watcher=watcher)
    assert model.name == "tiny-clip"
    assert model.lock.sources == (LockedSource(REPO, OTHER_COMMIT),)
    assert watcher.notes == [f"{REPO}: main is commit {OTHER_COMMIT}."]


def test_a_given_revision_replaces_the_pinned_one(
    tiny: Path,
    tmp_path: Path,
    server: ModelHubServer,
    hub: HuggingFaceHub,
    store: ModelStore,
    watcher: RecordingWatcher,
) -> None:
    first = pull_model(MODEL, store=store, hub=hub, watcher=watcher)
    newer = read_files(write_tiny_clip(tmp_path / "newer", seed=7))
    server.add(REPO, newer, OTHER_COMMIT)
    again = pull_model(MODEL, store=store, hub=hub, watcher=watcher, revisions=[COMMIT])
    assert again == first
    server.downloads.clear()
    del server.repos[REPO][OTHER_COMMIT]
    again = pull_model(MODEL, store=store, hub=hub, watcher=watcher, revisions=["main"])
    assert (again, server.downloads) == (first, [])
    server.add(REPO, newer, OTHER_COMMIT)
    other = pull_model(MODEL, store=store, hub=hub, watcher=watcher, revisions=[OTHER_COMMIT])
    assert other.lock.sources == (LockedSource(REPO, OTHER_COMMIT),)
    assert other.lock.files != first.lock.files
    with pytest.raises(InvalidRequest, match=r"give --revision 1 times"):
        pull_model(MODEL, store=store, hub=hub, watcher=watcher, revisions=["a", "b"])


def test_two_repositories_make_one_model_for_the_index_of_another(
    tmp_path: Path,
    server: ModelHubServer,
    hub: HuggingFaceHub,
    store: ModelStore,
    watcher: RecordingWatcher,
) -> None:
    server.add(REPO, read_files(write_tiny_clip(tmp_path / "english", "transformers")))
    other = write_tiny_clip(tmp_path / "multilingual", "immich", seed=9)
    server.add("someone/texts", {**read_files(other), "textual/stale": b"x" * 1000})
    sources = (
        HubSource(REPO, COMMIT, Half.IMAGE),
        HubSource("someone/texts", COMMIT, Half.TEXT, without=frozenset({"textual/stale"})),
    )
    mixed = KnownModel("mixed", "", 32, "MIT", sources)
    pull_model(MODEL, store=store, hub=hub, watcher=watcher)
    model = pull_model(mixed, store=store, hub=hub, watcher=watcher)
    assert len(model.lock.sources) == 2
    assert server.began_at("textual/stale") == []
    first, second = (find_model(name, store=store) for name in ("tiny", "mixed"))
    assert first.fingerprint == second.fingerprint
    vectors = [
        each.load_text_encoder(threads=1).encode_texts(["a dog"]).vectors
        for each in (first, second)
    ]
    assert not np.allclose(vectors[0], vectors[1])


def test_a_hub_that_changed_a_file_of_a_pinned_commit_is_not_trusted(
    tiny: Path,
    server: ModelHubServer,
    hub: HuggingFaceHub,
    store: ModelStore,
    watcher: RecordingWatcher,
) -> None:
    source = HubSource(REPO, COMMIT, sha256={IMAGE_GRAPH: "0" * 64})
    model = KnownModel("tiny", "", 32, "MIT", (source,))
    with pytest.raises(ModelError, match="A commit cannot change"):
        pull_model(model, store=store, hub=hub, watcher=watcher)
    assert server.downloads == []
    assert_nothing_is_installed(store)
    sha256 = hashlib.sha256((tiny / "config.json").read_bytes()).hexdigest()
    source = HubSource(REPO, COMMIT, sha256={"config.json": sha256})
    pull_model(KnownModel("tiny", "", 32, "MIT", (source,)), store=store, hub=hub, watcher=watcher)


def test_a_forged_file_leaves_no_model_and_the_next_pull_needs_only_that_file(
    tiny: Path,
    server: ModelHubServer,
    hub: HuggingFaceHub,
    store: ModelStore,
    watcher: RecordingWatcher,
) -> None:
    server.forged[IMAGE_GRAPH] = b"another graph"
    with pytest.raises(ModelError, match=r"visual/model\.onnx is not what it should be"):
        pull_model(MODEL, store=store, hub=hub, watcher=watcher)
    assert_nothing_is_installed(store)
    server.forged.clear()
    server.downloads.clear()
    pull_model(MODEL, store=store, hub=hub, watcher=watcher)
    # Files come in the order of their names.
    assert [path for path, _ in server.downloads] == [IMAGE_GRAPH, "visual/preprocess_cfg.json"]


def test_a_repository_that_names_a_file_outside_is_refused_whole(
    tiny: Path,
    tmp_path: Path,
    server: ModelHubServer,
    hub: HuggingFaceHub,
    store: ModelStore,
    watcher: RecordingWatcher,
) -> None:
    server.add(REPO, {**read_files(tiny), "visual/..": b"evil"})
    with pytest.raises(ModelError, match="no plain name"):
        pull_model(MODEL, store=store, hub=hub, watcher=watcher)
    assert server.downloads == []
    server.add(REPO, {**read_files(tiny), "visual/../../../evil": b"evil"})
    pull_model(MODEL, store=store, hub=hub, watcher=watcher)
    assert list(tmp_path.rglob("evil")) == []


def test_files_that_make_no_model_are_refused_before_it_appears(
    tiny: Path,
    server: ModelHubServer,
    hub: HuggingFaceHub,
    store: ModelStore,
    watcher: RecordingWatcher,
) -> None:
    server.add(REPO, {**read_files(tiny), "config.json": b"{}"})
    with pytest.raises(ModelError, match=r"config\.json"):
        pull_model(MODEL, store=store, hub=hub, watcher=watcher)
    assert_nothing_is_installed(store)


def test_an_unknown_revision_is_named(
    tiny: Path, hub: HuggingFaceHub, store: ModelStore, watcher: RecordingWatcher
) -> None:
    with pytest.raises(ModelError, match=r"no revision 'v9'.*--revision"):
        pull_model(MODEL, store=store, hub=hub, watcher=watcher, revisions=["v9"])


def test_without_a_network_the_error_says_exactly_what_to_do(
    store: ModelStore, watcher: RecordingWatcher
) -> None:
    hub = HuggingFaceHub("http://127.0.0.1:9")
    with pytest.raises(Unavailable) as caught:
        pull_model(published_model("clip-ViT-L-14"), store=store, hub=hub, watcher=watcher)
    message = str(caught.value)
    assert "cannot be reached" in message
    assert "onnx/vision_model.onnx" in message
    assert "Xenova/clip-vit-large-patch14" in message
    assert "c307790166907339eed5a9a53a249af534102536" in message
    assert "imagedex models pull clip-ViT-L-14 --from-dir DIR" in message


def test_a_disk_that_is_too_small_is_found_before_anything_is_brought(
    tiny: Path,
    server: ModelHubServer,
    hub: HuggingFaceHub,
    store: ModelStore,
    watcher: RecordingWatcher,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    usage = shutil.disk_usage(tiny)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    with pytest.raises(StorageError, match=r"has 1,000 bytes left; free some space"):
        pull_model(MODEL, store=store, hub=hub, watcher=watcher)
    assert server.downloads == []


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_directory_is_installed_without_a_network_and_stays_as_it_was(
    tmp_path: Path, store: ModelStore, watcher: RecordingWatcher, layout: Layout
) -> None:
    directory = write_tiny_clip(tmp_path / "brought", layout)
    (directory / "notes.txt").write_text("mine")
    before = read_files(directory)
    model = install_directory("mine", directory, store=store, watcher=watcher)
    assert read_files(directory) == before
    assert model.lock.sources == ()
    assert {file.path for file in model.lock.files} == set(before) - {"notes.txt"}
    graph = next(
        file.path for file in model.lock.files if "vi" in file.path and "onnx" in file.path
    )
    assert (model.directory / graph).samefile(directory / graph)
    with pytest.raises(Conflict, match="installed already; replace it by --force"):
        install_directory("mine", directory, store=store, watcher=watcher)
    install_directory("mine", directory, store=store, watcher=watcher, force=True)


def test_what_somebody_put_into_the_store_by_hand_is_not_deleted(
    tiny: Path, hub: HuggingFaceHub, store: ModelStore, watcher: RecordingWatcher
) -> None:
    mine = store.directory / "tiny" / "config.json"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(Conflict, match="is no model that was installed"):
        pull_model(MODEL, store=store, hub=hub, watcher=watcher)
    with pytest.raises(Conflict, match="is no model that was installed"):
        install_directory("tiny", tiny, store=store, watcher=watcher)
    assert mine.read_text() == "mine"
    pull_model(MODEL, store=store, hub=hub, watcher=watcher, force=True)
    assert store.names() == ("tiny",)


def test_a_directory_of_links_is_installed_as_the_files_themselves(
    tmp_path: Path, store: ModelStore, watcher: RecordingWatcher
) -> None:
    real = write_tiny_clip(tmp_path / "blobs")
    for path in read_files(real):
        link = tmp_path / "snapshot" / path
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(real / path)
    model = install_directory("mine", tmp_path / "snapshot", store=store, watcher=watcher)
    assert not any(path.is_symlink() for path in model.directory.rglob("*"))
    assert read_files(real).items() <= read_files(model.directory).items()


def test_a_directory_that_is_no_model_is_refused(
    tmp_path: Path, store: ModelStore, watcher: RecordingWatcher
) -> None:
    with pytest.raises(NotFound, match="check --from-dir"):
        install_directory("mine", tmp_path / "none", store=store, watcher=watcher)
    directory = write_tiny_clip(tmp_path / "brought")
    (directory / "visual" / "model.onnx").unlink()
    with pytest.raises(ModelError, match="has no image half"):
        install_directory("mine", directory, store=store, watcher=watcher)


def test_a_fixed_text_axis_is_freed_or_said_to_stay(
    tmp_path: Path, store: ModelStore, watcher: RecordingWatcher
) -> None:
    directory = write_tiny_clip(tmp_path / "brought", text_axis="fixed")
    before = read_files(directory)
    model = install_directory("mine", directory, store=store, watcher=watcher)
    axis = model.lock.text_axis
    assert axis is not None
    assert axis.reason
    assert read_files(directory) == before
    changed = (model.directory / "textual/model.onnx").read_bytes() != before["textual/model.onnx"]
    assert changed == axis.is_dynamic
    assert list(file_faults(model)) == []


def test_an_unknown_name_is_no_repository(store: ModelStore) -> None:
    with pytest.raises(NotFound, match=r"OWNER/NAME, or one of: clip-ViT-L-14"):
        published_model("vgg16")
    with pytest.raises(NotFound):
        published_model("a/b/c")


def test_a_hub_that_answers_a_commit_with_another_one_is_not_trusted(
    tiny: Path,
    server: ModelHubServer,
    hub: HuggingFaceHub,
    store: ModelStore,
    watcher: RecordingWatcher,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # At the other commit nothing is known of the files, so that anything would be taken.
    source = HubSource(REPO, COMMIT, sha256={IMAGE_GRAPH: "0" * 64})
    model = KnownModel("tiny", "", 32, "MIT", (source,))
    server.add(REPO, read_files(tiny), OTHER_COMMIT)
    monkeypatch.setattr(server, "commit_of", lambda _repo, _revision: OTHER_COMMIT)
    with pytest.raises(ModelError, match="do not trust this hub"):
        pull_model(model, store=store, hub=hub, watcher=watcher)
    assert server.downloads == []
    assert_nothing_is_installed(store)


def test_a_model_of_the_same_name_from_elsewhere_is_not_taken_for_this_one(
    tiny: Path,
    server: ModelHubServer,
    hub: HuggingFaceHub,
    store: ModelStore,
    watcher: RecordingWatcher,
) -> None:
    first = pull_model(MODEL, store=store, hub=hub, watcher=watcher)
    server.add("other/tiny", read_files(tiny))
    other = published_model("other/tiny")
    revisions: list[list[str]] = [[], [COMMIT]]
    for given in revisions:
        with pytest.raises(Conflict, match=f"is another one, from {REPO}; replace it by --force"):
            pull_model(other, store=store, hub=hub, watcher=watcher, revisions=given)
    assert store.get("tiny") == first
    model = pull_model(other, store=store, hub=hub, watcher=watcher, force=True)
    assert model.lock.sources == (LockedSource("other/tiny", COMMIT),)


def test_hidden_files_that_file_managers_leave_stay_behind(
    tmp_path: Path, store: ModelStore, watcher: RecordingWatcher
) -> None:
    directory = write_tiny_clip(tmp_path / "brought")
    for name in ("visual/.DS_Store", "textual/._tokenizer.json"):
        (directory / name).write_text("of the file manager")
    model = install_directory("mine", directory, store=store, watcher=watcher)
    assert not any("/." in file.path for file in model.lock.files)
