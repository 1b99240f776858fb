"""Python processes that a test starts, talks to by lines, and kills."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def child(script: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Run a script in a process of its own, which is dead at the end of the block.

    Its standard output is a pipe of lines; its standard error is the test's.
    """
    command = [sys.executable, "-u", "-c", textwrap.dedent(script), *map(str, arguments)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def read_line(process: subprocess.Popen[str]) -> str:
    """Return the next line that the process prints; fails when it ends instead."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, f"The process ended with code {process.wait()}."
    return line.rstrip("\n")


def remaining_numbers(process: subprocess.Popen[str]) -> list[int]:
    """Wait for the end of a killed process; return the whole lines that it had still printed."""
    assert process.stdout is not None
    return [int(line) for line in process.stdout.read().split("\n")[:-1]]


def write_line(process: subprocess.Popen[str], line: str) -> None:
    """Give the process a line to read."""
    assert process.stdin is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()


def run_together(script: str, argument_lists: list[tuple[object, ...]]) -> list[list[str]]:
    """Run a script several times at once; return what each process printed, by line.

    Each process must print ``ready`` first and wait for a line before it begins.
    """
    processes = [
        subprocess.Popen(
            [sys.executable, "-u", "-c", textwrap.dedent(script), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for arguments in argument_lists
    ]
    try:
        for process in processes:
            assert read_line(process) == "ready"
        for process in processes:
            write_line(process, "go")
        outputs = [process.communicate(timeout=120)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert [process.returncode for process in processes] == [0] * len(processes)
    return [output.splitlines() for output in outputs]
