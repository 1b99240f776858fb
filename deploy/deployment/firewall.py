"""The firewall: a table of our own, and the addresses that it lets through."""

from __future__ import annotations

import contextlib
import ipaddress
import shutil
from collections.abc import Sequence
from pathlib import Path

from deployment.machine import DeploymentFailed, install_package, run, say, write_file
from deployment.service import UNITS

_UNIT = "imagedex-firewall.service"
_DEFAULT_PORTS = ("443", "8080")
_HEAD = "# Who may reach what; see firewall.nft. After a change: systemctl reload imagedex-firewall"


class Firewall:
    """The rules in ``directory``, loaded by a unit of their own."""

    def __init__(self, directory: Path, bundle: Path) -> None:
        self._rules = directory / "firewall.nft"
        self._addresses = directory / "firewall-addresses.nft"
        self._new_rules = bundle / "nftables" / "firewall.nft"
        self._new_unit = bundle / "systemd" / _UNIT

    @property
    def is_set_up(self) -> bool:
        """Whether an earlier deployment has set it up."""
        return self._addresses.is_file()

    def set_up(
        self, *, internal: Sequence[str], cluster: Sequence[str], ports: Sequence[str]
    ) -> None:
        """Load the rules; new addresses replace those of before, without any they stay.

        Raises DeploymentFailed when nft refuses them; the ones of before stay in force then.
        """
        if shutil.which("nft") is None:
            install_package("nftables")
        files = [self._rules, self._addresses]
        before = {path: path.read_text("utf-8") for path in files if path.is_file()}
        changed = write_file(self._rules, self._new_rules.read_text("utf-8"))
        if internal or cluster:
            text = _addresses(internal, cluster, ports or _DEFAULT_PORTS)
            changed |= write_file(self._addresses, text)
        try:
            run("nft", "--check", "--file", self._rules)
        except DeploymentFailed:
            for path in files:
                if path in before:
                    write_file(path, before[path])
                else:
                    path.unlink(missing_ok=True)
            raise
        changed |= write_file(UNITS / _UNIT, self._new_unit.read_text("utf-8"))
        if changed or not self._is_loaded():
            run("systemctl", "daemon-reload")
            run("systemctl", "--quiet", "enable", _UNIT)
            run("systemctl", "reload-or-restart", _UNIT)
            say("The firewall is loaded.")

    def _is_loaded(self) -> bool:
        with contextlib.suppress(DeploymentFailed):
            run("nft", "list", "table", "inet", "imagedex")
            return True
        return False


def _addresses(internal: Sequence[str], cluster: Sequence[str], ports: Sequence[str]) -> str:
    for port in ports:
        if not (port.isdecimal() and 0 < int(port) < 65536):
            raise DeploymentFailed(f"{port!r} is not a port.")
    lines = [_HEAD, f"add element inet imagedex api_ports {{ {', '.join(ports)} }}"]
    for name, networks in (("internal", internal), ("cluster", cluster)):
        for family in (4, 6):
            members = [text for text in networks if _family(text) == family]
            if members:
                elements = ", ".join(members)
                lines.append(f"add element inet imagedex {name}_ipv{family} {{ {elements} }}")
    return "\n".join([*lines, ""])


def _family(network: str) -> int:
    try:
        return ipaddress.ip_network(network).version
    except ValueError as error:
        raise DeploymentFailed(
            f"{network!r} is neither an address nor a network: {error}"
        ) from error
