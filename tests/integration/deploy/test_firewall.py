"""The rules of the firewall, loaded into a network of their own and tried from its neighbours."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.deployment_host import NFT, why_not_here
from support.waiting import wait_until

DEPLOY = Path(__file__).resolve().parents[3] / "deploy"
CONTROLLER, WORKER, COLLEAGUE, STRANGER = "10.90.0.1", "10.90.0.2", "10.90.1.3", "10.91.0.4"
PORTS = (22, 8080, 8786, 8790, 8849, 8850)

_LISTEN = """
import socket, sys, time
listeners = [socket.create_server(("0.0.0.0", int(port))) for port in sys.argv[1:]]
print("listening", flush=True)
time.sleep(600)
"""
_TRY = """
import socket, sys
controller, source, *ports = sys.argv[1:]
for port in ports:
    try:
        socket.create_connection((controller, int(port)), 30, (source, 0)).close()
    except ConnectionRefusedError:
        continue
    print(port)
"""

pytestmark = pytest.mark.skipif(why_not_here() is not None, reason=str(why_not_here()))


class Network:
    """A network namespace that lives as long as its process."""

    def __init__(self, stack: ExitStack) -> None:
        self._process = subprocess.Popen(["unshare", "--net", "sleep", "600"])
        stack.callback(self._process.wait)
        stack.callback(self._process.kill)
        self.pid = self._process.pid
        own = Path("/proc/self/ns/net").readlink()
        wait_until(lambda: Path(f"/proc/{self.pid}/ns/net").readlink() != own)

    def enter(self, *command: str | Path) -> list[str]:
        return ["nsenter", f"--target={self.pid}", "--net", "--", *map(str, command)]

    def run(self, *command: str | Path) -> str:
        done = subprocess.run(self.enter(*command), capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture
def networks() -> Iterator[tuple[Network, Network]]:
    """The controller's network, where all ports listen, and that of its neighbours."""
    with ExitStack() as stack:
        controller, neighbours = Network(stack), Network(stack)
        controller.run(
            "ip", "link", "add", "c0", "type", "veth", "peer", "name", "n0",
            "netns", str(neighbours.pid),
        )  # fmt: skip
        controller.run("ip", "address", "add", f"{CONTROLLER}/8", "dev", "c0")
        for address in (WORKER, COLLEAGUE, STRANGER):
            neighbours.run("ip", "address", "add", f"{address}/8", "dev", "n0")
        controller.run("ip", "link", "set", "lo", "up")
        controller.run("ip", "link", "set", "c0", "up")
        neighbours.run("ip", "link", "set", "n0", "up")
        listener = subprocess.Popen(
            controller.enter(sys.executable, "-S", "-c", _LISTEN, *map(str, PORTS)),
            stdout=subprocess.PIPE,
        )
        stack.callback(listener.wait)
        stack.callback(listener.kill)
        assert listener.stdout is not None
        stack.callback(listener.stdout.close)
        assert listener.stdout.readline() == b"listening\n"
        yield controller, neighbours


def reached(networks: tuple[Network, Network], source: str) -> list[int]:
    network = networks[0] if source == CONTROLLER else networks[1]
    told = network.run(sys.executable, "-S", "-c", _TRY, CONTROLLER, source, *map(str, PORTS))
    return [int(port) for port in told.split()]


def test_the_api_is_for_the_internal_network_and_the_engine_for_the_cluster_alone(
    networks: tuple[Network, Network], tmp_path: Path
) -> None:
    rules = tmp_path / "firewall.nft"
    addresses = tmp_path / "firewall-addresses.nft"
    text = (DEPLOY / "nftables" / "firewall.nft").read_text()
    rules.write_text(text.replace("/etc/imagedex/firewall-addresses.nft", str(addresses)))
    addresses.write_text(
        "add element inet imagedex api_ports { 8080 }\n"
        # One network lies in the other.
        "add element inet imagedex internal_ipv4 { 10.90.0.0/16, 10.90.1.0/24 }\n"
        f"add element inet imagedex cluster_ipv4 {{ {WORKER} }}\n"
    )
    assert reached(networks, STRANGER) == list(PORTS)

    networks[0].run(NFT, "--check", "--file", rules)
    assert reached(networks, STRANGER) == list(PORTS)  # It was a check.
    networks[0].run(NFT, "--file", rules)
    assert reached(networks, WORKER) == list(PORTS)
    assert reached(networks, COLLEAGUE) == [22, 8080, 8850]
    assert reached(networks, STRANGER) == [22, 8850]
    assert reached(networks, CONTROLLER) == list(PORTS)

    # Loaded anew with other addresses: those of before have gone, at once.
    addresses.write_text(
        addresses.read_text()
        .replace(WORKER, COLLEAGUE)
        .replace("10.90.0.0/16, 10.90.1.0/24", STRANGER)
    )
    networks[0].run(NFT, "--file", rules)
    assert reached(networks, WORKER) == [22, 8850]
    assert reached(networks, COLLEAGUE) == [22, 8786, 8790, 8849, 8850]
    assert reached(networks, STRANGER) == [22, 8080, 8850]


def test_the_addresses_of_the_example_are_taken(
    networks: tuple[Network, Network], tmp_path: Path
) -> None:
    rules = (DEPLOY / "nftables" / "firewall.nft").read_text()
    place = "/etc/imagedex/firewall-addresses.nft"
    (tmp_path / "rules").write_text(
        rules.replace(place, str(DEPLOY / "nftables" / "firewall-addresses.nft"))
    )
    networks[0].run(NFT, "--check", "--file", tmp_path / "rules")
