"""Secrets of the settings that lie in files, so that no environment or settings file shows them.

A secret ``NAME`` is named by the setting ``NAME_file``. Without either, it is the credential
``imagedex_NAME`` that systemd has put into ``$CREDENTIALS_DIRECTORY`` (``LoadCredential=`` in
systemd.exec(5)), if that is there.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SECRET_NAMES = ("admin_key", "database_url")

_DIRECTORY_VARIABLE = "CREDENTIALS_DIRECTORY"
_PREFIX = "imagedex_"
_MAX_BYTES = 64 * 1024  # Nobody's key is longer; a device or a wrong file could be without end.


def with_secrets(
    settings: Mapping[str, Any], environment: Mapping[str, str] = os.environ
) -> dict[str, Any]:
    """Return the settings with each secret that lies in a file.

    Raises ValueError, which names setting and file and never what the file holds, when a secret
    is given twice or its file cannot be used.
    """
    complete = dict(settings)
    for name in SECRET_NAMES:
        path = complete.get(f"{name}_file")
        if path is None:
            path = _credential(name, environment) if complete.get(name) is None else None
        elif complete.get(name) is not None:
            raise ValueError(f"{name} and {name}_file are both set; set one of them")
        if path is not None:
            complete[name] = _read(name, Path(str(path)).expanduser())
    return complete


def _credential(name: str, environment: Mapping[str, str]) -> Path | None:
    directory = environment.get(_DIRECTORY_VARIABLE)
    if not directory:
        return None
    path = Path(directory) / f"{_PREFIX}{name}"
    return path if path.exists() else None


def _read(name: str, path: Path) -> str:
    """Return what the file holds, without the white space around it, such as the last newline."""
    problem = f"{name} cannot be read from the file {str(path)!r}"
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
        secret = data.decode().strip()
    except OSError as error:
        raise ValueError(f"{problem}: {error.strerror}") from error
    except UnicodeDecodeError:
        # Not as the cause, since that error carries the bytes along.
        raise ValueError(f"{problem}: it is not UTF-8 text") from None
    if len(data) > _MAX_BYTES:
        raise ValueError(f"{problem}: it has more than {_MAX_BYTES} bytes")
    if not secret:
        raise ValueError(f"{problem}: it is empty")
    return secret
