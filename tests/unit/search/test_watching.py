"""What others publish is served here."""

from __future__ import annotations

from pathlib import Path

from imagedex.core.errors import StorageError
from imagedex.search import GenerationWatcher
from support.waiting import wait_until


def test_each_index_is_looked_at_again_and_again_whatever_happens() -> None:
    looks: list[Path] = []

    def refresh(index_prefix: Path) -> None:
        looks.append(index_prefix)
        if index_prefix.name == "away":
            raise StorageError("It is away.")
        if len(looks) == 2:
            raise ZeroDivisionError

    watcher = GenerationWatcher(refresh, lambda: [Path("away"), Path("there")], poll_seconds=0.001)
    watcher.start()
    wait_until(lambda: looks.count(Path("there")) > 3)
    watcher.close()
    assert looks[:4] == [Path("away"), Path("there")] * 2
    seen = len(looks)
    watcher.close()
    assert len(looks) == seen


def test_one_that_was_never_started_can_be_closed() -> None:
    GenerationWatcher(lambda _: None, list).close()
