"""The start and the end of the engine, with everything that can be in their way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from imagedex.core.errors import EngineError, SettingsError
from imagedex.engine import ClusterPlan, DaskEngine, HostSpec
from imagedex.testing.engine import DEADLINE_SECONDS, echo, wait_until
from integration.engine import hostile_chunks
from integration.engine.processes import is_alive

TESTS = str(Path(__file__).parents[2])

CONTROLLER = """
import sys
import time
from pathlib import Path
sys.path.append(sys.argv[1])
from integration.engine import hostile_chunks
from imagedex.engine import DaskEngine
directory = Path(sys.argv[2])
engine = DaskEngine(workers=2, log_dir=directory / "logs")
engine.start()
while len(engine.workers()) < 2:  # Or both chunks would be given to the first that is there.
    time.sleep(0.01)
chunks = [
    engine.submit(hostile_chunks.hang_with_the_interpreter_locked, str(directory)),
    engine.submit(hostile_chunks.hang_with_a_child, str(directory)),
]
chunks[0].result()
"""


def run_python(code: str, *arguments: str) -> str:
    """Run code in an interpreter of its own and return what it writes."""
    run = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_SECONDS,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_no_worker_outlives_a_killed_controller_not_even_one_that_hangs(tmp_path: Path) -> None:
    controller = subprocess.Popen([sys.executable, "-c", CONTROLLER, TESTS, str(tmp_path)])
    try:
        wait_until((tmp_path / "hangs").exists, "one worker to hang")
        wait_until((tmp_path / "waits").exists, "the other worker to wait for its child")
        workers = [int((tmp_path / name).read_text()) for name in ("hangs", "waits")]
        assert all(map(is_alive, workers))
    finally:
        controller.kill()
        controller.wait()
    wait_until(lambda: not any(map(is_alive, workers)), "the workers to end")
    # Its worker was killed by the kernel, and could not end it; nobody else needs it.
    os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)


def test_closing_ends_hung_workers_and_their_chunks(tmp_path: Path) -> None:
    engine = DaskEngine(workers=2, log_dir=tmp_path / "logs")
    engine.start()
    wait_until(lambda: len(engine.workers()) == 2, "both workers")
    chunks = [
        engine.submit(hostile_chunks.hang_with_the_interpreter_locked, str(tmp_path)),
        engine.submit(hostile_chunks.hang_with_a_child, str(tmp_path)),
        engine.submit(echo, "on the worker that answers nothing any more"),
    ]
    wait_until((tmp_path / "hangs").exists, "one worker to hang")
    wait_until((tmp_path / "waits").exists, "the other worker to wait for its child")
    processes = [int((tmp_path / name).read_text()) for name in ("hangs", "waits", "child")]
    engine.close()
    assert not any(map(is_alive, processes))
    for chunk in chunks:
        assert isinstance(chunk.exception(DEADLINE_SECONDS), EngineError)


def test_nothing_is_left_behind_but_the_logs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("cwd", "home", "tmp"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    path_before, threads_before = list(sys.path), threading.active_count()
    engine = DaskEngine(workers=1, log_dir=tmp_path / "logs")
    engine.start()
    assert engine.submit(echo, 1).result(DEADLINE_SECONDS) == 1
    engine.close()
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == [
        "cwd",
        "home",
        "logs",
        "logs/worker-1.log",
        "tmp",
    ]
    assert sys.path == path_before
    wait_until(lambda: threading.active_count() <= threads_before, "the engine's threads to end")


def test_workers_inherit_no_settings_and_so_no_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGEDEX_ADMIN_KEY", "secret")
    monkeypatch.setenv("IMAGEDEX_DATABASE_URL", "postgresql://user:secret@localhost/imagedex")
    monkeypatch.setenv("PGPASSWORD", "secret")
    monkeypatch.setenv("OTHER_VARIABLE", "stays")
    engine = DaskEngine(workers=1, log_dir=tmp_path / "logs")
    engine.start()
    try:
        for prefix, names in (
            ("IMAGEDEX_", []),
            ("PG", []),
            ("OTHER_VARIABLE", ["OTHER_VARIABLE"]),
        ):
            chunk = engine.submit(hostile_chunks.list_environment, prefix)
            assert chunk.result(DEADLINE_SECONDS) == names
    finally:
        engine.close()


def test_a_worker_that_cannot_import_what_it_needs_fails_the_start_with_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken" / "distributed"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('libbroken.so is missing')")
    import distributed  # noqa: F401 - The controller has the good one; only workers see this.

    engine = DaskEngine(workers=2, log_dir=tmp_path / "logs")
    with monkeypatch.context() as patch:
        patch.syspath_prepend(str(tmp_path / "broken"))
        with pytest.raises(EngineError, match=r"libbroken\.so is missing"):
            engine.start()
    assert engine.workers() == []
    engine.start()
    assert engine.submit(echo, "second start").result(DEADLINE_SECONDS) == "second start"
    engine.close()


def test_logs_that_cannot_be_written_fail_the_start_with_their_path(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file where a directory should be")
    engine = DaskEngine(workers=1, log_dir=tmp_path / "logs")
    with pytest.raises(EngineError, match=r"could not be started.*logs"):
        engine.start()
    engine.close()


def test_a_close_ends_a_start_that_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck = tmp_path / "stuck" / "distributed"
    stuck.mkdir(parents=True)
    (stuck / "__init__.py").write_text(
        f"import pathlib, time; pathlib.Path({str(tmp_path)!r}, 'stuck-now').touch()\n"
        "time.sleep(3600)"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "stuck"))
    engine = DaskEngine(workers=1, log_dir=tmp_path / "logs")
    errors: list[EngineError] = []

    def start() -> None:
        try:
            engine.start()
        except EngineError as error:
            errors.append(error)

    starter = threading.Thread(target=start)
    starter.start()
    wait_until((tmp_path / "stuck-now").exists, "the worker to be stuck in its imports")
    engine.close()
    starter.join(DEADLINE_SECONDS)
    assert not starter.is_alive()
    assert len(errors) == 1


def test_importing_the_engine_does_not_import_dask() -> None:
    code = """
import sys
import imagedex.engine
print([name for name in ("dask", "distributed", "tornado") if name in sys.modules])
"""
    assert run_python(code).strip() == "[]"


def test_a_missing_package_is_named_with_its_remedy(tmp_path: Path) -> None:
    code = """
import pathlib, sys
sys.modules["distributed"] = None  # As if it were not installed.
from imagedex.core.errors import EngineError
from imagedex.engine import DaskEngine
try:
    DaskEngine(workers=1, log_dir=pathlib.Path(sys.argv[1])).start()
except EngineError as error:
    print(error)
"""
    assert "pip install distributed" in run_python(code, str(tmp_path))


def test_workers_elsewhere_without_their_extra_are_refused_with_its_command(tmp_path: Path) -> None:
    code = """
import pathlib, sys
sys.modules["asyncssh"] = None  # As if it were not installed.
from imagedex.core.errors import SettingsError
from imagedex.engine import ClusterPlan, DaskEngine
home = pathlib.Path(sys.argv[1])
plan = ClusterPlan(authority=home / "tls", known_hosts=home / "known_hosts")
try:
    DaskEngine(workers=1, log_dir=home / "logs", cluster=plan)
except SettingsError as error:
    print(error)
DaskEngine(workers=1, log_dir=home / "logs")
print("asyncssh" in [name for name, module in sys.modules.items() if module is not None])
"""
    told = run_python(code, str(tmp_path))
    assert "pip install 'imagedex[cluster]'" in told
    assert told.endswith("False\n")


def test_an_engine_of_this_machine_alone_takes_no_hosts(tmp_path: Path) -> None:
    engine = DaskEngine(workers=1, log_dir=tmp_path / "logs")
    with pytest.raises(SettingsError, match="IMAGEDEX_ENGINE__INVENTORY"):
        engine.apply([HostSpec(name="gpu1", address="10.0.0.11")])
    engine.apply([])
    assert engine.hosts() == []


def test_two_hosts_of_one_name_are_refused(tmp_path: Path) -> None:
    plan = ClusterPlan(authority=tmp_path / "tls", known_hosts=tmp_path / "known_hosts")
    engine = DaskEngine(workers=0, log_dir=tmp_path / "logs", cluster=plan)
    with pytest.raises(SettingsError, match="same name"):
        engine.apply([HostSpec(name="gpu1", address=address) for address in ("a", "b")])
