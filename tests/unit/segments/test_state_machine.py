"""Random sequences of operations on the files of an index."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from imagedex.segments import (
    DirectoryIndexFiles,
    IndexFiles,
    IvfPolicy,
    Manifest,
    SnapshotDirectory,
    examine_files,
    mend_faiss_files,
    mend_pointer,
    publish_lock,
    roll_back,
)
from imagedex.segments.examination import manifests_present
from imagedex.testing.index_files import IndexFilesMachine, VectorArray


class _DirectoryMachine(IndexFilesMachine):
    """Snapshots, rollbacks and mending among all that every kind of index files does."""

    def __init__(self) -> None:
        super().__init__()
        self._snapshots = SnapshotDirectory(self._directory / "snapshots")
        self._kept: dict[str, dict[str, VectorArray]] = {}
        self._states: dict[int, dict[str, VectorArray]] = {}
        self._names = 0

    def reopen(self, index_prefix: Path) -> IndexFiles:
        # Some of its segments are small, and have no Faiss file.
        return DirectoryIndexFiles(index_prefix, ivf=IvfPolicy(flat_min_rows=3))

    @precondition(lambda self: self._files.current() is not None)
    @rule()
    def keep(self) -> None:
        """Make a snapshot."""
        manifest = self._files.current()
        assert manifest is not None
        self._names += 1
        name = f"kept-{self._names}"
        self._snapshots.create(name, self._files.index_prefix, manifest, ())
        self._kept[name] = dict(self._images)

    @precondition(lambda self: self._kept)
    @rule(data=st.data())
    def bring_back(self, data: st.DataObject) -> None:
        """Publish a snapshot again."""
        name = data.draw(st.sampled_from(sorted(self._kept)))
        before = self._files.current()
        assert before is not None
        prefix = self._files.index_prefix
        with publish_lock(prefix).held():
            self._went_to(
                before,
                self._snapshots.bring_back(
                    self._snapshots.get(name), prefix, known_generation=before.generation
                ),
            )
        self._images = dict(self._kept[name])

    @precondition(lambda self: self._kept)
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        """Delete a snapshot."""
        name = data.draw(st.sampled_from(sorted(self._kept)))
        self._snapshots.delete(name)
        del self._kept[name]

    @precondition(lambda self: self._files.current() is not None)
    @rule()
    def roll_back(self) -> None:
        """Go back to the generation before, if it is kept."""
        before = self._files.current()
        assert before is not None
        prefix = self._files.index_prefix
        kept = [
            manifest
            for _, manifest in manifests_present(prefix)
            if isinstance(manifest, Manifest) and manifest.generation <= before.generation
        ]
        # A generation that only moved rows holds what the one before it holds.
        earlier = [old for new, old in pairwise(kept) if not new.only_moves]
        if not earlier:
            return
        with publish_lock(prefix).held():
            after = roll_back(prefix, generation=None, known_generation=before.generation)
        self._went_to(before, after)
        self._images = dict(self._states[earlier[0].generation])

    @precondition(lambda self: self._files.current() is not None)
    @rule()
    def lose_the_pointer_and_the_structures(self) -> None:
        """Lose what can be made again, and make it again."""
        before = self._files.current()
        assert before is not None
        prefix = self._files.index_prefix
        (prefix / "CURRENT").unlink()
        for segment in before.segments:
            if segment.faiss is not None:
                (prefix / segment.faiss.name).unlink()
        numbers = {segment.number for segment in before.segments}
        with publish_lock(prefix).held():
            assert mend_pointer(prefix, known_generation=before.generation).manifest == before
            assert mend_faiss_files(prefix, before, numbers).manifest == before

    def _went_to(self, before: Manifest, after: Manifest) -> None:
        assert after.generation > before.generation
        assert after.fence > before.fence
        assert after.next_segment >= before.next_segment
        self._fence = after.fence

    @invariant()
    def the_files_are_sound(self) -> None:
        """Let the doctor look at them."""
        manifest = self._files.current()
        if manifest is not None:
            self._states[manifest.generation] = dict(self._images)
            assert examine_files(self._files.index_prefix).findings == ()


TestDirectoryIndexFiles = _DirectoryMachine.TestCase
TestDirectoryIndexFiles.settings = settings(
    max_examples=15,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
