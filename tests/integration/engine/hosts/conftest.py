"""Hosts that are network namespaces, and an engine with workers on two of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from imagedex.engine import ClusterPlan, DaskEngine, HostSpec, HostState
from imagedex.testing.engine import wait_until
from support.netns import PYTHON, Lan, NetHost, why_not


@pytest.fixture(scope="module")
def lan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lan]:
    """Give a bridge without hosts."""
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    lan = Lan(tmp_path_factory.mktemp("lan"))
    yield lan
    lan.close()


@pytest.fixture(scope="module")
def two_hosts(lan: Lan) -> Iterator[tuple[NetHost, NetHost]]:
    """Give two hosts that see all that the controller sees."""
    with lan.host("h1") as first, lan.host("h2") as second:
        yield first, second


def spec_of(host: NetHost, **changes: Any) -> HostSpec:
    """Return how an operator names a host."""
    fields = {"name": host.name, "address": host.address, "python": PYTHON, **changes}
    return HostSpec(**fields)


EngineMaker = Callable[..., DaskEngine]


@pytest.fixture
def make_engine(lan: Lan, tmp_path: Path) -> Iterator[EngineMaker]:
    """Give what makes an engine with workers on hosts alone; it is closed in the end."""
    with ExitStack() as engines:

        def make(*hosts: HostSpec, **changes: Any) -> DaskEngine:
            engine = engine_on(lan, tmp_path, *hosts, **changes)
            engines.callback(engine.close)
            return engine

        yield make


def engine_on(lan: Lan, directory: Path, *hosts: HostSpec, **changes: Any) -> DaskEngine:
    """Make an engine with workers on hosts, which listens on the bridge."""
    plan = ClusterPlan(
        authority=directory / "tls",
        known_hosts=changes.pop("known_hosts", lan.known_hosts),
        ssh_keys=(changes.pop("key", lan.key),),
        listen_host=lan.address,
        listen_port=0,
        worker_ports="0",
        models=changes.pop("models", None),
    )
    options = {"workers": 0, "log_dir": directory / "logs", "cluster": plan, "hosts": hosts}
    return DaskEngine(**{**options, **changes})


def wait_for_state(engine: DaskEngine, name: str, state: HostState) -> str | None:
    """Wait until a host is in this state, and return the reason."""
    wait_until(lambda: state_of(engine, name) is state, f"host {name} to be {state.value}")
    return next(host.reason for host in engine.hosts() if host.name == name)


def state_of(engine: DaskEngine, name: str) -> HostState | None:
    """Return the state of a host."""
    return next((host.state for host in engine.hosts() if host.name == name), None)
