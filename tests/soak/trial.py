"""A server that is killed again and again while files and index change at random."""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from soak.photos import BROKEN, Photos
from soak.served import Scores, Served, ask
from support.commands import Commands
from support.pictures import draw_pictures
from support.server import ServerProcess, wait_for_job

_SETTINGS = {
    # All that can happen, as often as can be: small chunks, many generations, many merges.
    "IMAGEDEX_INDEXING__CHUNK_IMAGES": "4",
    "IMAGEDEX_INDEXING__COMMIT_SECONDS": "0.2",
    "IMAGEDEX_INDEXING__MAX_DELTAS": "2",
    # What is gone leaves with the next scan, however much it is, so that the model stays plain.
    "IMAGEDEX_INDEXING__REMOVAL_GRACE_SECONDS": "0",
    "IMAGEDEX_INDEXING__REMOVAL_SHARE": "1",
    "IMAGEDEX_INDEXING__SETTLE_SECONDS": "0",
}
_LONGEST_WAIT_SECONDS = 2.5
_MOST_WAITING_JOBS = 3


@dataclass
class SoakReport:
    """What a trial has done; a sound server leaves ``faults`` empty."""

    seed: int
    kills: int = 0  # Of the server.
    command_kills: int = 0  # Of commands that work on the index beside it or instead of it.
    checks: int = 0
    done: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        done = ", ".join(f"{count} {name}" for name, count in sorted(self.done.items()))
        return (
            f"seed {self.seed}: {self.kills} kills of the server and {self.command_kills} of "
            f"commands, {self.checks} checks; {done}\n"
            + "\n".join(self.faults or ["nothing lost, doubled or dangling"])
        )


class Trial:
    """One trial; the same seed makes the same choices, at other moments of the server's work.

    ``_sure`` holds what every answer must show from now on: the content of each path that a
    completed job had to look at and that has not changed since, None for one that is gone.
    ``_claims`` are those of jobs that have not ended. Of every other path an answer may show
    nothing or any content that the path ever had, but nothing else, and never twice.
    """

    def __init__(self, folder: Path, *, seed: int, files: int) -> None:
        self.report = SoakReport(seed)
        self._chance = random.Random(seed)
        self._folder = folder
        self._files = files
        root, pictures = folder / "photos", folder / "contents"
        draw_pictures(pictures, 3 * files, seed=seed)
        root.mkdir()
        settings = {**_SETTINGS, "IMAGEDEX_INDEX_ROOTS": str(folder / "indexes")}
        self._home = folder / "home"
        self._server = ServerProcess(self._home, [root, pictures], settings)
        roots = os.pathsep.join([str(root), str(pictures)])
        self._commands = Commands.local(self._home, IMAGEDEX_IMAGE_ROOTS=roots, **settings)
        self._sure: dict[str, str | None] = {}
        self._claims: dict[str, dict[str, str | None]] = {}
        self._snapshots: dict[str, dict[str, str | None]] = {}
        self._snapshot_number = 0
        self._command_seconds = 0.0  # What the last one took that was let be done.
        self._newest = 0

    def run(
        self, *, kills: int, note: Callable[[SoakReport], object] = lambda _: None
    ) -> SoakReport:
        """Go on until the server was killed so often, or a fault was found.

        ``note`` is told how it stands at each check.
        """
        self._server.start()
        try:
            self._prepare()
            while self.report.kills < kills and not self.report.faults:
                self._round()
                if self._chance.random() < 0.2:
                    self._check()
                    note(self.report)
                    self._keep_snapshot()
                    if self._chance.random() < 0.5:
                        self._go_back()
                        self._check()
            if not self.report.faults:
                self._check()
        finally:
            self._server.stop()
        return self.report

    def _prepare(self) -> None:
        pictures = self._folder / "contents"
        with self._server.client() as client:
            self._scores = Scores.learn(client, pictures, self._folder / "indexes" / "contents")
        contents = {name: (pictures / name).read_bytes() for name in self._scores.contents}
        self._photos = Photos(
            self._folder / "photos", contents, self._chance, most_files=self._files
        )
        self._photos.add_some(self._files // 2)
        self._check()

    def _round(self) -> None:
        """Change files, ask for something, and kill the server at some moment or let it be done."""
        touched = self._change_files(self._chance.randint(1, 6))
        job_id = self._request(touched)
        if self._chance.random() < 0.2:
            self._change_files(2)
        if self._chance.random() < 0.85:
            is_over = self._wait_for_some_moment(job_id)
            if not is_over or self._chance.random() < 0.3:
                self._kill()
        self._look()
        if len(self._claims) > _MOST_WAITING_JOBS:
            self._wait_for_jobs()

    def _change_files(self, count: int) -> set[str]:
        touched: set[str] = set()
        for _ in range(count):
            name, paths = self._photos.change()
            self.report.done[name] += 1
            touched |= paths
        for path in touched:
            for known in (self._sure, *self._claims.values()):
                known.pop(path, None)
        return touched

    def _request(self, touched: set[str]) -> str:
        """Ask for a job; return its id."""
        kind = self._chance.choices(
            ("scan", "notify", "rebuild", "forced scan"), weights=(5, 5, 2, 1)
        )[0]
        present = self._photos.present
        claim: dict[str, str | None] = {}
        body: dict[str, Any] = {}
        if kind == "notify" and touched:
            route, body = "notify", {"image_paths": sorted(touched)}
            claim = {path: present.get(path) for path in touched}
        elif kind == "rebuild":
            route = "rebuild"
        else:
            route = "trigger"
            body = {"image_dir": str(self._photos.root), "force_reindex": kind == "forced scan"}
            claim = {path: present.get(path) for path in self._photos.former}
        self.report.done[kind] += 1
        job_id = self._post(route, body)
        # A forced job that runs already is not run again for what has changed since.
        if job_id not in self._claims or kind != "forced scan":
            # An older version of a broken file stays findable.
            self._claims[job_id] = {p: c for p, c in claim.items() if c != BROKEN}
        return job_id

    def _post(self, route: str, body: dict[str, Any]) -> str:
        with self._server.client() as client:
            answer = client.post(f"/api/v1/index/{route}", json=body)
            assert answer.status_code == 202, answer.text
            job_id: str = answer.json()["job_id"]
            return job_id

    def _wait_for_some_moment(self, job_id: str) -> bool:
        """Return at a random moment, or at a dangerous one; True when the job ended before."""
        index = self._home / "index"
        watched = self._chance.choice(
            (None, index / "CURRENT", index / "segments", index / "parts")
        )
        began = _version(watched)
        seconds = self._chance.uniform(0.0, _LONGEST_WAIT_SECONDS)
        now = time.monotonic()
        moment, look_at = now + (seconds if watched is None else _LONGEST_WAIT_SECONDS), now
        delay = self._chance.choice((0.0, 0.0, 0.002, 0.01))
        while time.monotonic() < moment:
            if watched is not None and _version(watched) != began:
                time.sleep(delay)
                return False
            if time.monotonic() >= look_at:
                if self._status(job_id) in ("completed", "failed", "cancelled"):
                    return True
                look_at = time.monotonic() + 0.05
            time.sleep(0.0005)
        return False

    def _status(self, job_id: str) -> str:
        with self._server.client() as client:
            answer = client.get(f"/api/v1/index/status/{job_id}")
            assert answer.status_code == 200, answer.text
            status: str = answer.json()["status"]
            return status

    def _kill(self) -> None:
        self._server.kill()
        self.report.kills += 1
        self._server.start()

    def _look(self) -> None:
        """Hold what is served against what is sure."""
        for job_id in list(self._claims):
            status = self._status(job_id)
            if status == "completed":
                # Of a path that several jobs claim, what it has is the same: it has not changed.
                self._sure.update(self._claims.pop(job_id))
            elif status in ("failed", "cancelled", "paused"):
                self._fault(f"job {job_id} is {status}")
                self._claims.pop(job_id)
        self._compare(self._ask(), self._sure)

    def _ask(self) -> Served:
        with self._server.client() as client:
            served = ask(client, self._scores)
        for fault in served.faults:
            self._fault(fault)
        if served.generation is not None:
            if served.generation < self._newest:
                self._fault(f"generation went back from {self._newest} to {served.generation}")
            self._newest = served.generation
        return served

    def _compare(self, served: Served, sure: dict[str, str | None]) -> None:
        for path, content in served.contents.items():
            if content is None or content not in self._photos.former.get(path, ()):
                self._fault(f"{path} was found as {content}, which it never was")
        for path, content in sure.items():
            found = served.contents.get(path)
            if found != content:
                self._fault(f"{path} was found as {found}, though it is {content}")

    def _fault(self, text: str) -> None:
        self.report.faults.append(f"after {self.report.kills} kills: {text}")

    def _wait_for_jobs(self) -> None:
        with self._server.client() as client:
            for job_id in self._claims:
                wait_for_job(client, job_id)
        self._look()

    def _check(self) -> None:
        """Let a scan come to its end; then the index is what the model is, and healthy."""
        self._wait_for_jobs()
        job_id = self._post("trigger", {"image_dir": str(self._photos.root)})
        with self._server.client() as client:
            status = wait_for_job(client, job_id)
        if status["status"] != "completed":
            self._fault(f"the scan ended {status['status']}: {status['error']}")
            return
        present = self._photos.present
        self._sure = {
            path: present.get(path) for path in self._photos.former if present.get(path) != BROKEN
        }
        served = self._ask()
        self._compare(served, self._sure)
        broken = sum(content == BROKEN for content in present.values())
        if served.num_failed != broken:
            self._fault(f"num_failed is {served.num_failed}, though {broken} files are broken")
        began = time.monotonic()
        diagnosis = self._commands.start("doctor", "--json")
        told, errors = diagnosis.communicate(timeout=60)
        self._command_seconds = time.monotonic() - began
        if diagnosis.returncode != 0:
            self._fault(f"the doctor found: {told}{errors}")
        self._state = served.contents
        self.report.checks += 1

    def _keep_snapshot(self) -> None:
        """Make a snapshot, or begin to; whatever is listed then is whole."""
        self._snapshot_number += 1
        name = f"kept-{self._snapshot_number}"
        self._run_or_kill("snapshot", "create", name)
        listed = self._commands.json("snapshot", "list")
        if listed["damaged"]:
            self._fault(f"damaged snapshots: {listed['damaged']}")
        if name in [snapshot["name"] for snapshot in listed["snapshots"]]:
            self._snapshots[name] = self._state
            self.report.done["snapshot"] += 1
        if len(self._snapshots) > 3:
            oldest = next(iter(self._snapshots))
            del self._snapshots[oldest]
            self._commands.run("snapshot", "delete", oldest)

    def _go_back(self) -> None:
        """Stop or kill the server, restore a snapshot or roll back, and start it again."""
        if self._chance.random() < 0.5:
            self._server.stop()
        else:
            self._server.kill()
            self.report.kills += 1
        before, expected = self._state, None
        if self._snapshots and self._chance.random() < 0.7:
            kind, name = "restore", self._chance.choice(sorted(self._snapshots))
            is_done = self._run_or_kill("snapshot", "restore", name)
            expected = self._snapshots[name]
        else:
            kind, is_done = "rollback", self._run_or_kill("rollback")
        self.report.done[kind] += is_done
        self._server.start()
        served = self._ask()
        self._compare(served, {})
        if expected is not None:
            allowed = [expected] if is_done else [expected, before]
            if served.contents not in allowed:
                self._fault(f"the {kind} brought {served.contents}, expected one of {allowed}")
        self._sure = {}

    def _run_or_kill(self, *arguments: str) -> bool:
        """Run a command; True when it came to its end before it was killed."""
        process = self._commands.start(*arguments)
        if self._chance.random() < 0.5:
            try:
                process.wait(self._chance.uniform(0.0, self._command_seconds))
            except subprocess.TimeoutExpired:
                process.kill()
                self.report.command_kills += 1
                process.communicate()
                return False
        told, errors = process.communicate(timeout=60)
        if process.returncode != 0:
            self._fault(f"{arguments} ended with {process.returncode}: {told}{errors}")
        return True


def _version(path: Path | None) -> tuple[int, int] | None:
    """Return what changes when a file is replaced, or when a directory gets another entry."""
    if path is None:
        return None
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns
