"""``deploy.sh`` against a host with a real sshd: install, upgrade, failure, going back."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.deployment_host import NFT, DeploymentHost, why_not_here
from support.fake_release import make_release
from support.waiting import wait_until

DEPLOY = Path(__file__).resolve().parents[3] / "deploy" / "deploy.sh"
DEADLINE_SECONDS = 120.0

pytestmark = pytest.mark.skipif(why_not_here() is not None, reason=str(why_not_here()))


class Operator:
    """Deploys to the host as an operator would."""

    def __init__(self, host: DeploymentHost, folder: Path) -> None:
        self.host = host
        self._folder = folder

    def command(self, *arguments: str | Path) -> list[str]:
        return self.host.beside(
            DEPLOY, *arguments, "--ssh-config", self.host.ssh_config, self.host.name
        )

    def deploy(self, *arguments: str | Path, code: int = 0) -> str:
        done = subprocess.run(
            self.command(*arguments), capture_output=True, text=True, timeout=DEADLINE_SECONDS
        )
        assert done.returncode == code, f"{done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def release(self, version: str, **traits: Any) -> Path:
        return make_release(self._folder, version, **traits)

    def facts(self) -> dict[str, Any]:
        """What the server of the host says of itself."""
        answer = self.host.run(
            "/usr/bin/python3", "-c",
            "import urllib.request as r; "
            "print(r.urlopen('http://127.0.0.1:8080/health/ready').read().decode())",
        )  # fmt: skip
        facts: dict[str, Any] = json.loads(answer)
        return facts

    def calls(self) -> list[str]:
        return self.host.run("cat", "/run/systemctl.log").splitlines()


@pytest.fixture
def operator(tmp_path: Path) -> Iterator[Operator]:
    (tmp_path / "host").mkdir()
    (tmp_path / "wheels").mkdir()
    host = DeploymentHost(tmp_path / "host")
    yield Operator(host, tmp_path / "wheels")
    host.close()


def test_versions_come_and_go(operator: Operator) -> None:
    host = operator.host
    first = operator.release("1.0")
    told = operator.deploy("install", "--wheel", first, "--image-root", '/srv/a "b"')

    # Installed: as a user of its own, with its key in a file that only the server gets.
    facts = operator.facts()
    assert (facts["version"], facts["user"]) == ("1.0", "imagedex")
    key = host.run("cat", "/etc/imagedex/credentials/admin_key").strip()
    assert len(key) >= 32
    assert facts["key"] == hashlib.sha256(key.encode()).hexdigest()
    assert not facts["secret_in_environment"]
    assert key not in told
    modes = host.run(
        "stat", "--format=%a %U", "/etc/imagedex/credentials",
        "/etc/imagedex/credentials/admin_key", "/var/lib/imagedex", "/opt/imagedex/current/bin",
    )  # fmt: skip
    assert modes.splitlines() == ["700 root", "600 root", "700 imagedex", "755 root"]
    modes = host.run(
        "stat", "--format=%a %U:%G", "/etc/imagedex/imagedex.toml",
        "/run/imagedex-deployment.lock",
    )  # fmt: skip
    assert modes.splitlines() == ["640 root:imagedex", "600 root:root"]
    assert 'image_roots = ["/srv/a \\"b\\""]' in host.run("cat", "/etc/imagedex/imagedex.toml")
    assert "--quiet enable imagedex.service" in operator.calls()

    # Once more changes nothing, and stops nothing.
    before = operator.calls()
    assert "there already" in operator.deploy("install", "--wheel", first)
    assert {call.split()[0] for call in operator.calls()[len(before) :]} == {"show"}
    assert host.run("cat", "/etc/imagedex/credentials/admin_key").strip() == key

    # An upgrade that brings the database to a newer form.
    operator.deploy("install", "--wheel", operator.release("1.1", form="0002"))
    assert operator.facts()["starts"] == ["1.0", "1.1"]
    assert operator.facts()["key"] == facts["key"]

    # The version before refuses that form; the one of then comes back when it is wanted.
    refused = operator.deploy("rollback", code=1)
    assert "--restore-database" in refused
    assert operator.facts()["version"] == "1.1"
    operator.deploy("rollback", "--restore-database")
    assert operator.facts()["version"] == "1.0"
    assert operator.facts()["starts"] == ["1.0", "1.0"]
    assert host.run("stat", "--format=%a %U", "/var/lib/imagedex/imagedex.db") == "600 imagedex\n"
    assert "no version before" in operator.deploy("rollback", code=1)

    # A version that changes the database and then is not ready is left again by itself.
    broken = operator.release("2.0", form="0003", behaviour="unready")
    told = operator.deploy("install", "--wheel", broken, "--ready-seconds", "1", code=1)
    assert "answers 503" in told
    assert "database is the one from before again" in told
    assert operator.facts()["starts"] == ["1.0", "1.0", "1.0"]
    assert operator.deploy("status").count("\n") == 6  # host, three versions, before, ready


def test_a_deployment_that_was_cut_off_is_brought_to_an_end_by_the_next(operator: Operator) -> None:
    refusing = operator.release("0.9", behaviour="refusing")
    told = operator.deploy("install", "--wheel", refusing, code=3)
    assert "The settings cannot be used." in told  # Its last words.
    assert "no other version to go back to" in told

    # What belongs to the host beside the version: the firewall, and what may be written.
    operator.host.run("mkdir", "/var/lib/imagedex-indexes")
    told = operator.deploy(
        "install", "--wheel", operator.release("1.0"), "--writable", "/var/lib/imagedex-indexes",
        "--internal", "10.0.0.0/8", "--internal", "fd00::/8", "--cluster", "10.0.0.11",
    )  # fmt: skip
    assert "The firewall is loaded." in told
    drop_in = operator.host.run("cat", "/etc/systemd/system/imagedex.service.d/storage.conf")
    assert drop_in.endswith('[Service]\nReadWritePaths="/var/lib/imagedex-indexes"\n')
    rules = operator.host.run(NFT, "list", "table", "inet", "imagedex")
    for told_by in ("elements = { 443, 8080 }", "10.0.0.0/8", "fd00::/8", "10.0.0.11"):
        assert told_by in rules
    for option, value, reason in (
        ("--cluster", "gpu1", "'gpu1' is neither an address nor a network"),
        ("--writable", "/var/lib/nowhere", "There is no directory '/var/lib/nowhere'"),
    ):
        again = "install", "--wheel", operator.release("1.0"), option, value
        assert reason in operator.deploy(*again, code=1)
    assert operator.host.run(NFT, "list", "table", "inet", "imagedex") == rules
    assert operator.facts()["version"] == "1.0"

    silent = operator.release("2.0", behaviour="silent")
    cut_off = subprocess.Popen(
        operator.command("install", "--wheel", silent), stdout=subprocess.DEVNULL
    )

    def deployments() -> list[int]:
        found = subprocess.run(
            ["pgrep", "--ns", str(operator.host.pid), "--nslist", "net", "-f", "[-]m deployment"],
            capture_output=True, text=True,
        )  # fmt: skip
        return [int(pid) for pid in found.stdout.split()]

    wait_until(lambda: "2.0" in operator.host.run("readlink", "/opt/imagedex/current"))
    for pid in deployments():
        os.kill(pid, signal.SIGKILL)
    assert cut_off.wait() == 1

    told = operator.deploy("install", "--wheel", silent, "--ready-seconds", "1", code=1)
    assert "Version 1.0" in told
    assert operator.facts()["version"] == "1.0"


def test_root_follows_no_link_of_the_service_user(operator: Operator) -> None:
    """Who took over the service must not get more from the next deployment."""
    host = operator.host
    first, second = operator.release("1.0"), operator.release("1.1")
    operator.deploy("install", "--wheel", first)
    host.run("mkdir", "/opt/others")
    host.run("touch", "/opt/others/before-1.db")
    host.run("ln", "-s", "/opt/others", "/var/lib/imagedex/deployments")

    assert "unable to open database" in operator.deploy("install", "--wheel", second, code=1)
    assert "copies of the database stay" in operator.deploy("install", "--wheel", first)
    assert operator.facts()["version"] == "1.0"
    assert host.run("stat", "--format=%a %U", "/opt/others") == "755 root\n"
    assert host.run("ls", "/opt/others") == "before-1.db\n"

    host.run("rm", "/var/lib/imagedex/deployments")
    operator.deploy("install", "--wheel", second)
    mode = host.run("stat", "--format=%a %U", "/var/lib/imagedex/deployments")
    assert mode == "700 imagedex\n"


def test_a_directory_of_a_deployment_is_no_link(operator: Operator) -> None:
    operator.host.run("mkdir", "-p", "/opt/imagedex", "/opt/others")
    operator.host.run("ln", "-s", "/opt/others", "/opt/imagedex/versions")
    told = operator.deploy("install", "--wheel", operator.release("1.0"), code=1)
    assert "/opt/imagedex/versions must be a directory, and no link" in told


def test_two_deployments_at_once_are_refused(operator: Operator) -> None:
    holder = subprocess.Popen(
        operator.host.enter("flock", "/run/imagedex-deployment.lock", "sleep", "600"),
    )
    wait_until(lambda: "imagedex-deployment" in operator.host.run("ls", "/run"))
    try:
        told = operator.deploy("install", "--wheel", operator.release("1.0"), code=1)
    finally:
        holder.kill()
        holder.wait()
    assert "Another deployment is under way" in told


def test_a_host_that_is_not_known_gets_nothing(operator: Operator) -> None:
    (operator.host.folder / "known_hosts").write_text("")
    told = operator.deploy("install", "--wheel", operator.release("1.0"), code=1)
    assert "Host key verification failed" in told
    assert "imagedex" not in operator.host.run("ls", "/opt")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "Say what to do"),
        (["upgrade", "host"], "no command upgrade"),
        (["install"], "Name a host"),
        (["install", "--fast", "yes", "host"], "no option --fast"),
        (["install", "--wheel"], "--wheel needs a value"),
        (["install", "--image-root", "/a\nb", "host"], "cannot be used"),
        (["install", "--ready-seconds", "soon", "host"], "not a number"),
        (["install", "--restore-database", "host"], "goes with rollback"),
        (["install", "--api-port", "443", "host"], "goes with --internal or --cluster"),
    ],
)
def test_a_wrong_command_line_is_told(arguments: list[str], told: str) -> None:
    done = subprocess.run([DEPLOY, *arguments], capture_output=True, text=True)
    assert done.returncode == 2
    assert told in done.stderr
