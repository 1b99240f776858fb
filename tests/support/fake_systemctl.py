#!/usr/bin/python3 -S
"""systemd in small, for a test host that has none: keeps services running as their units say.

It does what deployments rely on: ``Type=notify``, ``User=``, ``LoadCredential=`` of a directory,
``Restart=always`` with ``RestartPreventExitStatus=``, and the states that ``show`` tells. Each call
is a line of ``/run/systemctl.log``; what services write goes to ``/run/journal``.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

UNITS = Path("/etc/systemd/system")
STATES = Path("/run/fake-systemd")
RESTART_SECONDS = 0.1


def settings_of(unit: str) -> dict[str, str]:
    lines = (UNITS / unit).read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and line[0] != "#")


class State:
    def __init__(self, unit: str) -> None:
        self.path = STATES / f"{unit}.json"

    def read(self) -> dict[str, object]:
        try:
            state: dict[str, object] = json.loads(self.path.read_text())
        except FileNotFoundError:
            return {"ActiveState": "inactive", "NRestarts": 0}
        return state

    def write(self, **state: object) -> None:
        new = self.path.with_suffix(f".{os.getpid()}")
        new.write_text(json.dumps({**self.read(), **state}))
        new.replace(self.path)


def keep_running(unit: str) -> None:
    """Run a service until SIGTERM; in a process of its own."""
    settings, state = settings_of(unit), State(unit)
    ending = False

    def end(number: int, frame: object) -> None:
        nonlocal ending
        ending = True

    signal.signal(signal.SIGTERM, end)
    state.write(ActiveState="activating", NRestarts=0, manager=os.getpid())
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
    if "LoadCredential" in settings:
        name, source = settings["LoadCredential"].split(":")
        target = Path("/run/credentials") / unit
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for path in Path(source).iterdir():
            copy = target / f"{name}_{path.name}"
            shutil.copyfile(path, copy)
            copy.chmod(0o400)
            shutil.chown(copy, settings["User"])
        environment["CREDENTIALS_DIRECTORY"] = str(target)
    address = STATES / f"{unit}.notify"
    address.unlink(missing_ok=True)
    notifications = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notifications.bind(str(address))
    address.chmod(0o666)
    notifications.settimeout(0.02)
    environment["NOTIFY_SOCKET"] = str(address)
    restarts = 0
    while True:
        with Path("/run/journal").open("ab") as journal:
            process = subprocess.Popen(
                # The shell ends with 126 or 127 where the program cannot be executed.
                ["/bin/sh", "-c", f"exec {settings['ExecStart']}"],
                stdin=subprocess.DEVNULL,
                stdout=journal,
                stderr=journal,
                env=environment,
                cwd="/",
                user=settings["User"],
                group=settings["Group"],
                extra_groups=[],
            )
        while process.poll() is None and not ending:
            try:
                if b"READY=1" in notifications.recv(4096):
                    state.write(ActiveState="active")
            except TimeoutError:
                continue
        if ending:
            process.terminate()
            process.wait()
            state.write(ActiveState="inactive", manager=None)
            return
        prevented = settings.get("RestartPreventExitStatus", "").split()
        if str(process.returncode) in prevented:
            state.write(ActiveState="failed", manager=None)
            return
        restarts += 1
        state.write(ActiveState="activating", NRestarts=restarts)
        time.sleep(RESTART_SECONDS)


def start(unit: str) -> None:
    settings, state = settings_of(unit), State(unit)
    if settings["Type"] == "oneshot":
        subprocess.run(settings["ExecStart"].split(), check=True)
        state.write(ActiveState="active")
        return
    if state.read().get("manager"):
        return
    state.write(ActiveState="activating", NRestarts=0)
    subprocess.Popen(
        [sys.executable, "-S", __file__, "keep-running", unit],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while not state.read().get("manager") and state.read()["ActiveState"] == "activating":
        time.sleep(0.01)


def stop(unit: str) -> None:
    state = State(unit)
    manager = state.read().get("manager")
    if isinstance(manager, int):
        os.kill(manager, signal.SIGTERM)
        while state.read().get("manager"):
            time.sleep(0.01)
    state.write(ActiveState="inactive")


def main() -> None:
    STATES.mkdir(exist_ok=True)
    command, *units = [word for word in sys.argv[1:] if not word.startswith("--")]
    if command == "keep-running":
        keep_running(units[0])
        return
    with Path("/run/systemctl.log").open("a") as log:
        log.write(" ".join(sys.argv[1:]) + "\n")
    if command == "start":
        start(units[0])
    elif command == "stop":
        stop(units[0])
    elif command == "reload-or-restart":
        start(units[0])
    elif command == "show":
        state = State(units[0]).read()
        print(f"ActiveState={state['ActiveState']}\nNRestarts={state['NRestarts']}")  # noqa: T201
    elif command not in ("daemon-reload", "enable", "reset-failed"):
        sys.exit(f"This systemctl has no {command}.")


if __name__ == "__main__":
    main()
