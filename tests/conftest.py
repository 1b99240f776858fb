"""What holds for every test: no network beyond this machine, a clean environment, no silent skips.

``IMAGEDEX_NO_SKIPS=1`` turns each skip into a failure, but for tests that need the evaluation
images beside the checkout where there are none. CI sets it.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from pytest_socket import socket_allow_hosts

from support import netns

pytest_plugins = ("support.databases",)

# An optional evaluation folder beside the checkout: captions.tsv and images/.
SHARED_EVAL = Path(__file__).resolve().parents[2] / "shared" / "eval" / "stamps"
NO_SKIPS = pytest.StashKey[bool]()

hypothesis.settings.register_profile("dev", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)


def pytest_configure(config: pytest.Config) -> None:
    """Forget the developer's own settings, before any fixture of any scope can see them."""
    inherited = getattr(config, "workerinput", {})
    config.stash[NO_SKIPS] = inherited.get("no_skips", os.environ.get("IMAGEDEX_NO_SKIPS") == "1")
    for name in [name for name in os.environ if name.startswith("IMAGEDEX_")]:
        del os.environ[name]
    # Tests start hundreds of processes, each of which would compile the whole package.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "dev")


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a process that runs a part of the tests what its environment no longer says."""
    node.workerinput["no_skips"] = node.config.stash[NO_SKIPS]


def pytest_collection_finish() -> None:
    """Let no collection of garbage look through what lasts as long as the tests.

    There are a million objects by now, most of them modules and tests: half a second each time.
    """
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let sockets reach this machine only, its network namespaces included where they are used."""
    networks = [netns.NETWORK] if item.get_closest_marker("hosts") else []
    socket_allow_hosts(["127.0.0.1", "::1", *networks], allow_unix_socket=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a skipped test where skips are not allowed."""
    report = yield
    is_excused = item.get_closest_marker("shared") is not None and not SHARED_EVAL.is_dir()
    if report.skipped and not hasattr(report, "wasxfail") and not is_excused:
        _forbid_skip(item.config, report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Fail a module that skips itself where skips are not allowed."""
    report = yield
    if report.skipped:
        _forbid_skip(collector.config, report)
    return report


def _forbid_skip(config: pytest.Config, report: pytest.TestReport | pytest.CollectReport) -> None:
    if config.stash[NO_SKIPS]:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"No test may be skipped here (IMAGEDEX_NO_SKIPS=1). {reason}"


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start each test without settings, whatever the one before it left."""
    for name in [name for name in os.environ if name.startswith("IMAGEDEX_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def shared_eval() -> Path:
    """The evaluation folder: ``captions.tsv`` and ``images/``; mark its users ``shared``."""
    if not SHARED_EVAL.is_dir():
        pytest.skip(f"there is no evaluation folder beside this checkout ({SHARED_EVAL})")
    return SHARED_EVAL
