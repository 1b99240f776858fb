"""Where skips are forbidden, a skip fails; the excused ones stay skips."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).resolve().parents[1] / "conftest.py"

SUITE = """
import pytest

def test_that_skips_itself():
    pytest.skip("no browser here")

@pytest.mark.skip(reason="marked")
def test_that_is_marked():
    pass

@pytest.mark.shared
def test_of_the_evaluation_images(shared_eval):
    pass

def test_that_passes():
    pass
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A small test suite that uses this one's conftest, without evaluation images beside it."""
    tests = tmp_path / "checkout" / "tests"
    tests.mkdir(parents=True)
    (tests / "conftest.py").write_text(CONFTEST.read_text("utf-8"))
    (tests / "test_some.py").write_text(SUITE)
    (tests / "test_module.py").write_text("import pytest\npytest.importorskip('no_such_module')\n")
    settings = f"[pytest]\nmarkers = shared\npythonpath = {CONFTEST.parent}\n"
    (tests.parent / "pytest.ini").write_text(settings)
    return tests.parent


def run(suite: Path, *options: str, **environment: str) -> str:
    """Return the closing line of pytest."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--continue-on-collection-errors", *options],
        cwd=suite,
        env={**os.environ, "PYTEST_ADDOPTS": "", **environment},
        capture_output=True,
        text=True,
    )
    return done.stdout.splitlines()[-1].partition(" in ")[0]


@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["one process", "two processes"])
def test_skips_are_failures_where_they_are_forbidden(suite: Path, options: tuple[str, ...]) -> None:
    closing = run(suite, *options, IMAGEDEX_NO_SKIPS="1")
    # The module and the marked test fail before a test's own code, which pytest calls errors.
    assert closing == "1 failed, 1 passed, 1 skipped, 2 errors"


def test_skips_are_skips_elsewhere(suite: Path) -> None:
    assert run(suite) == "1 passed, 4 skipped"
