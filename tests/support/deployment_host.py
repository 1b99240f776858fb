"""A host to deploy to: a real sshd among file systems, processes and a network of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from support.waiting import wait_until

SSHD = "/usr/sbin/sshd"
NFT = "/usr/sbin/nft"
SUPPORT = Path(__file__).resolve().parent

# What a deployment changes are upper layers of the machine's own directories, gone with the host.
_SET_UP = """
set -eu
mount -t tmpfs -o mode=0755 layers "$1/layers"
for directory in /etc /opt /usr/local /var/lib; do
    mkdir -p "$1/layers/upper$directory" "$1/layers/work$directory"
    mount -t overlay overlay "$directory" -o \
        "lowerdir=$directory,upperdir=$1/layers/upper$directory,workdir=$1/layers/work$directory"
done
mount -t tmpfs -o mode=0755 run /run
mkdir -p /run/lock /run/sshd /usr/local/sbin
cp "$2" /usr/local/sbin/systemctl
printf '#!/bin/sh\\ncat /run/journal\\n' >/usr/local/sbin/journalctl
chmod 0755 /usr/local/sbin/systemctl /usr/local/sbin/journalctl
ip link set lo up
mount -t tmpfs -o mode=0700 home /root
exec "$3" -D -e -f "$1/sshd_config"
"""


class DeploymentHost:
    """A machine for itself on this one, with ``fake_systemctl`` in place of systemd."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = "host.test"
        for name in ("host_key", "key"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True
            )
        (folder / "layers").mkdir()
        (folder / "known_hosts").write_text(
            f"{self.name} {(folder / 'host_key.pub').read_text()}", "utf-8"
        )
        (folder / "sshd_config").write_text(
            "Port 22\nListenAddress 127.0.0.1\nUsePAM no\nStrictModes no\n"
            f"PidFile none\nHostKey {folder}/host_key\nAuthorizedKeysFile {folder}/key.pub\n"
            "PermitRootLogin prohibit-password\nPasswordAuthentication no\n",
            "utf-8",
        )
        self.ssh_config = folder / "ssh_config"
        self.ssh_config.write_text(
            f"Host {self.name}\nHostName 127.0.0.1\nHostKeyAlias {self.name}\nUser root\n"
            f"IdentityFile {folder}/key\nIdentitiesOnly yes\n"
            f"UserKnownHostsFile {folder}/known_hosts\nGlobalKnownHostsFile /dev/null\n",
            "utf-8",
        )
        self._log = folder / "sshd.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    "unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc",
                    "--kill-child", "sh", "-c", _SET_UP, "set-up", folder,
                    SUPPORT / "fake_systemctl.py", SSHD,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )  # fmt: skip
        wait_until(self._listens)

    def _listens(self) -> bool:
        assert self._process.poll() is None, self._log.read_text()
        return "Server listening" in self._log.read_text()

    @property
    def pid(self) -> int:
        """A process with the host's network and files."""
        return self._process.pid

    def enter(self, *command: str | Path) -> list[str]:
        """Return the command as it is run on the host."""
        return [
            "nsenter", f"--target={self._process.pid}", "--mount", "--net", "--",
            *map(str, command),
        ]  # fmt: skip

    def run(self, *command: str | Path) -> str:
        """Run a command on the host; return what it writes."""
        done = subprocess.run(self.enter(*command), capture_output=True, text=True, check=True)
        return done.stdout

    def beside(self, *command: str | Path) -> list[str]:
        """Return the command as it is run with the host's network and this machine's files."""
        return ["nsenter", f"--target={self._process.pid}", "--net", "--", *map(str, command)]

    def close(self) -> None:
        """End all that runs on it."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()


def why_not_here() -> str | None:
    """Return why this machine cannot have such a host, or None when it can."""
    if os.geteuid() != 0:
        return "Only root can make namespaces and overlays."
    if sys.platform != "linux" or not Path(SSHD).exists():
        return "sshd is not installed; on Debian: apt-get install openssh-server"
    if not Path(NFT).exists():
        return "nft is not installed; on Debian: apt-get install nftables"
    return None
