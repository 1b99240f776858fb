"""The host: its commands, files and users."""

from __future__ import annotations

import contextlib
import fcntl
import grp
import json
import os
import pwd
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

_COMMAND_SECONDS = 1800.0


class DeploymentFailed(Exception):
    """The host could not be brought to what was asked; the text says why."""


def say(text: str) -> None:
    """Tell the operator, who may have gone: a lost connection must not stop what was begun."""
    with contextlib.suppress(OSError):
        os.write(sys.stdout.fileno(), f"  {text}\n".encode())


def run(
    *command: str | Path, user: str | None = None, environment: Mapping[str, str] | None = None
) -> str:
    """Run a command to its end and return what it writes; as root, or as another user.

    Raises DeploymentFailed with the end of what it wrote to stderr.
    """
    identity = {} if user is None else {"user": user, "group": user, "extra_groups": []}
    try:
        done = subprocess.run(
            list(map(str, command)),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_COMMAND_SECONDS,
            cwd="/",  # Other users cannot enter the directory that this comes from.
            env=None if environment is None else {**os.environ, **environment},
            **identity,  # type: ignore[call-overload]
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise DeploymentFailed(f"{command[0]} could not be run to its end: {error}") from error
    if done.returncode != 0:
        told = done.stderr.strip()[-2000:] or done.stdout.strip()[-2000:]
        words = " ".join(word for word in map(str, command[:3]) if "\n" not in word)
        raise DeploymentFailed(f"{words} … failed:\n{told}")
    output: str = done.stdout
    return output


def install_package(name: str) -> None:
    """Install a package of the distribution, with its own lists when they are not new enough."""
    say(f"Installing {name}.")
    options = ("-qq", "-o", "DPkg::Lock::Timeout=300")
    install = ("apt-get", *options, "install", "--yes", "--no-install-recommends", name)
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    try:
        run(*install, environment=quiet)
    except DeploymentFailed:
        run("apt-get", *options, "update", environment=quiet)
        run(*install, environment=quiet)


def ensure_user(name: str, home: Path) -> None:
    """Make a system user that nobody can log in as, unless it is there."""
    try:
        pwd.getpwnam(name)
    except KeyError:
        say(f"Making the user {name}.")
        run(
            "useradd", "--system", "--user-group", "--home-dir", home,
            "--shell", "/usr/sbin/nologin", name,
        )  # fmt: skip


def ensure_directory(path: Path, mode: int, owner: str = "root") -> None:
    """Make a directory with this mode and owner, or give them to it.

    Raises DeploymentFailed for a link, which would give away what it leads to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        raise DeploymentFailed(
            f"{path} must be a directory, and no link; mount there what lies elsewhere: {error}"
        ) from error
    try:
        entry = pwd.getpwnam(owner)
        os.fchown(descriptor, entry.pw_uid, entry.pw_gid)
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)


def write_file(path: Path, text: str, mode: int = 0o644, *, group: str = "root") -> bool:
    """Let root's file hold the text, all of it or what it held before; say whether it changed."""
    with contextlib.suppress(FileNotFoundError):
        if path.read_text("utf-8") == text and path.stat().st_mode & 0o777 == mode:
            return False
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with open(descriptor, "w", encoding="utf-8") as file:
        os.fchown(descriptor, 0, grp.getgrnam(group).gr_gid)
        os.fchmod(descriptor, mode)
        file.write(text)
        file.flush()
        os.fsync(descriptor)
    new.replace(path)
    return True


def lines_of(path: Path) -> list[str]:
    """Return the lines of an option's file; it is there only when the option was given."""
    try:
        return path.read_text("utf-8").splitlines()
    except FileNotFoundError:
        return []


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the only deployment of this host; raises DeploymentFailed when there is another."""
    # Root's alone, as whoever can read a file can lock it. Not inherited by what is started here,
    # so the lock ends with this process.
    with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DeploymentFailed("Another deployment is under way on this host.") from error
        yield


def toml(value: str | Sequence[str]) -> str:
    """Return a string or an array of strings as TOML has it, which is as JSON has it."""
    return json.dumps(value, ensure_ascii=False)
