"""The inventory: a file that names the hosts on which workers run."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from imagedex.core.errors import SettingsError
from imagedex.core.paths import PathMapping
from imagedex.engine.hosts import DEFAULT_PYTHON, LOCAL_NAME, HostSpec

# SSH hands a command to a shell, and names of hosts become those of files and workers.
_PYTHON = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_./+-]{0,254}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")


class _HostEntry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    name: Annotated[str, Field(pattern=f"^{_NAME.pattern}$")]
    address: Annotated[str, Field(pattern=r"^[A-Za-z0-9:][A-Za-z0-9.:_%-]{0,254}$")]
    port: Annotated[int, Field(ge=1, le=65535)] = 22
    user: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.@$-]{0,63}$")] | None = None
    python: Annotated[str, Field(pattern=f"^{_PYTHON.pattern}$")] = DEFAULT_PYTHON
    workers: Annotated[int, Field(ge=1, le=256)] = 1
    threads: Annotated[int, Field(ge=0, le=256)] = 0
    gpus: list[Annotated[int, Field(ge=0, le=255)]] = []
    paths: dict[str, str] = {}
    models: Annotated[str, Field(pattern="^/")] | None = None

    @field_validator("name")
    @classmethod
    def _require_other_name(cls, value: str) -> str:
        if value == LOCAL_NAME:
            raise ValueError(f"{LOCAL_NAME!r} is the controller's own machine")
        return value

    @field_validator("paths")
    @classmethod
    def _require_paths(cls, value: dict[str, str]) -> dict[str, str]:
        PathMapping(value.items())
        return value

    def spec(self) -> HostSpec:
        fields: dict[str, Any] = self.model_dump()
        fields["gpus"] = tuple(self.gpus)
        fields["paths"] = PathMapping(self.paths.items())
        return HostSpec(**fields)


class _Inventory(BaseModel):
    model_config = ConfigDict(extra="forbid")

    host: list[_HostEntry] = []


def read_inventory(path: Path) -> tuple[HostSpec, ...]:
    """Return the hosts of an inventory file (TOML, a table ``[[host]]`` for each).

    Raises SettingsError that names each entry which cannot be used.
    """
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise SettingsError(
            f"The inventory {str(path)!r} cannot be read: {error.strerror}; correct "
            "IMAGEDEX_ENGINE__INVENTORY."
        ) from error
    except ValueError as error:
        raise SettingsError(f"The inventory {str(path)!r} is not TOML: {error}") from error
    try:
        specs = tuple(entry.spec() for entry in _Inventory.model_validate(document).host)
    except ValidationError as error:
        lines = [
            f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
            for problem in error.errors()
        ]
        raise SettingsError(
            f"The inventory {str(path)!r} cannot be used: " + "; ".join(lines)
        ) from error
    names = [spec.name for spec in specs]
    for name in names:
        if names.count(name) > 1:
            raise SettingsError(
                f"The inventory {str(path)!r} names two hosts {name!r}; each needs its own name."
            )
    return specs
