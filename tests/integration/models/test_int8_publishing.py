"""The int8 form of a graph beside it, under kills, another quantiser and a full disk."""

from __future__ import annotations

import hashlib
import random
import time
from pathlib import Path

import pytest

from imagedex.core.errors import Conflict
from imagedex.embedding.clip.files import int8_record_path
from imagedex.embedding.clip.int8_record import Int8Record, QuantisationMethod
from imagedex.models import int8_files
from support.children import child, read_line

PUBLISH_FOR_EVER = """
    import sys
    from itertools import count
    from pathlib import Path
    from imagedex.embedding.clip.int8_record import Int8Record, QuantisationMethod
    from imagedex.models import int8_files

    graph = Path(sys.argv[1])
    for number in count():
        with int8_files.only_quantiser(graph.parent), int8_files.work_folder(graph) as work:
            files = [work / int8_files.new_name(graph, suffix) for suffix in (".xml", ".bin")]
            for file in files:
                file.write_bytes(b"%d" % number * 1000)
            record = Int8Record(
                QuantisationMethod.CALIBRATED, int8_files.describe_files(files), number, {}
            )
            int8_files.publish_int8(graph, work, record)
        print(number)
"""

HOLD = """
    import sys
    from pathlib import Path
    from imagedex.models import int8_files

    with int8_files.only_quantiser(Path(sys.argv[1])):
        print("held")
        sys.stdin.readline()
"""


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"float32")
    return path


def make(graph: Path, content: bytes) -> Int8Record:
    with int8_files.work_folder(graph) as work:
        file = work / int8_files.new_name(graph, ".onnx")
        file.write_bytes(content)
        record = Int8Record(QuantisationMethod.DYNAMIC, int8_files.describe_files([file]), 0, {})
        int8_files.publish_int8(graph, work, record)
    return record


def require_whole(graph: Path) -> Int8Record:
    record = Int8Record.read(int8_record_path(graph))
    assert record is not None
    for file in record.files:
        content = graph.with_name(file.path).read_bytes()
        assert hashlib.sha256(content).hexdigest() == file.sha256
    return record


def test_a_new_form_takes_the_place_of_the_old_one_and_leaves_nothing_of_it(graph: Path) -> None:
    old = make(graph, b"old")
    new = make(graph, b"new")
    assert require_whole(graph) == new
    assert old.files[0].path != new.files[0].path
    assert sorted(path.name for path in graph.parent.iterdir()) == sorted(
        ["model.onnx", "model_int8.json", new.files[0].path]
    )


def test_after_every_kill_the_record_leads_to_whole_files(graph: Path) -> None:
    chance = random.Random(0)
    for _ in range(6):
        with child(PUBLISH_FOR_EVER, graph) as process:
            for _ in range(1 + chance.randrange(4)):
                read_line(process)
            time.sleep(chance.uniform(0.0, 0.02))  # Which step it dies in is left to chance.
            process.kill()
            process.wait()
        require_whole(graph)
    last = make(graph, b"last")
    assert require_whole(graph) == last
    assert {path.name for path in graph.parent.iterdir()} == {
        "model.onnx", "model_int8.json", last.files[0].path, ".quantising.lock"
    }  # fmt: skip


def test_two_do_not_quantise_one_model_at_once_and_death_gives_the_right_back(
    tmp_path: Path,
) -> None:
    with child(HOLD, tmp_path) as process:
        assert read_line(process) == "held"
        with pytest.raises(Conflict, match="Another process"), int8_files.only_quantiser(tmp_path):
            pass
        process.kill()
        process.wait()
        with int8_files.only_quantiser(tmp_path):
            pass


def test_a_failure_leaves_the_old_form_and_no_work_behind(graph: Path) -> None:
    old = make(graph, b"old")

    def fail_half_way() -> None:
        with int8_files.work_folder(graph) as work:
            (work / int8_files.new_name(graph, ".onnx")).write_bytes(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_half_way()
    assert require_whole(graph) == old
    assert not list(graph.parent.glob(".quantising-*"))
