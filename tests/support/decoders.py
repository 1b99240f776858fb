"""Decoder processes that need not import anything before they decode."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerContext
from subprocess import DEVNULL, PIPE, TimeoutExpired

from support.forked import ForkedProcess, Passed


class _ForkedDecoder(ForkedProcess):
    stderr = None  # Which tells why a start fails; a fork has nothing to fail of.


class ReadyDecoders:
    """Takes the place of ``subprocess`` for those who start decoders, of a fresh interpreter each.

    They spend half a second on it, and a test of the flow of indexing learns nothing from that.
    """

    DEVNULL, PIPE, TimeoutExpired = DEVNULL, PIPE, TimeoutExpired

    def __init__(self, context: ForkServerContext) -> None:
        self._context = context

    def Popen(  # noqa: N802 - The name of what it stands for.
        self,
        command: Sequence[str],
        *,
        pass_fds: Sequence[int],
        env: Mapping[str, str],
        **_: object,
    ) -> _ForkedDecoder:
        assert "imagedex.ingest._decoder_process" in command
        return _ForkedDecoder(self._context, _decode, Passed(pass_fds[0]), dict(env))


def _decode(descriptor: int, environment: dict[str, str]) -> None:
    from imagedex.ingest._decoder_process import main

    os.setpgid(0, 0)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["imagedex.ingest._decoder_process", str(descriptor)]
    main()
