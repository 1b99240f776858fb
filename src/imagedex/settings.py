"""All settings: environment variables with the prefix ``IMAGEDEX_`` and a TOML file.

Nested settings are reached by ``__``: ``IMAGEDEX_SERVER__PORT=8080``. The environment wins over
the file. Settings are read once, at start, and handed down as plain values.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from imagedex.core.errors import SettingsError
from imagedex.credentials import with_secrets
from imagedex.embedding.runtimes import Precision, Runtime


def _absolute(path: Path | None) -> Path | None:
    return None if path is None else Path(os.path.abspath(path.expanduser()))  # noqa: PTH100 - resolve() would follow links.


def _cron(text: str, zone: str = "UTC") -> str:
    """Return a schedule that can be used; empty for never."""
    from imagedex.jobs.cron import CronTimes

    text = text.strip()
    if text:
        try:
            CronTimes(text, zone)
        except SettingsError as error:
            raise ValueError(str(error)) from error
    return text


CronText = Annotated[str, AfterValidator(_cron)]


class _Group(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ServerSettings(_Group):
    """The HTTP server."""

    host: str = Field("127.0.0.1", description="Address that the server listens on.")
    port: int = Field(8080, ge=0, le=65535, description="Port; 0 takes any free one.")
    max_body_bytes: int = Field(
        8 * 1024 * 1024, ge=1024, description="Largest request body that is read."
    )
    shutdown_seconds: float = Field(
        10.0, gt=0, description="How long open requests may take to end when the server stops."
    )


class IndexingSettings(_Group):
    """The flow of images into an index."""

    workers: int = Field(1, ge=1, le=256, description="Local worker processes.")
    threads_per_worker: int = Field(
        0,
        ge=0,
        le=256,
        description="Cores of one worker, and how many decoder processes it has (each up to "
        "`IMAGEDEX_DECODING__MEMORY_BYTES`); 0 shares all cores among the workers.",
    )
    chunk_images: int = Field(
        256,
        ge=1,
        le=4096,
        description="Images of a chunk at most. Chunks, the unit of dispatch and checkpoint, are "
        "cut to `IMAGEDEX_INDEXING__CHUNK_SECONDS` of each worker's measured rate.",
    )
    chunk_seconds: float = Field(
        3.0,
        gt=0,
        le=600,
        description="How long a chunk should keep its worker busy. What a worker that dies had is "
        "done again.",
    )
    no_worker_seconds: float = Field(
        60.0,
        gt=0,
        description="A job that waits so long while no worker is connected goes back into the "
        "line with that error, and fails when it has happened twenty times without progress.",
    )
    stall_seconds: float = Field(
        300.0,
        ge=1,
        description="A worker that says so long nothing of the chunk it has is taken to hang: it "
        "is ended, and another one gets the chunk. To load a model counts as well.",
    )
    shared_from_images: int = Field(
        1000,
        ge=1,
        description="A notification of so many images is shared among all workers; a smaller one "
        "goes to one of them, so that the others need no model for it.",
    )
    commit_images: int = Field(
        20_000,
        ge=1,
        description="A running job publishes after this many embedded or imported images.",
    )
    commit_seconds: float = Field(
        10.0,
        gt=0,
        description="A running job publishes what it has after this many seconds, and after a "
        "tenth of its time so far when that is longer, so that segments stay few.",
    )
    max_deltas: int = Field(
        8,
        ge=1,
        description="When a job leaves more segments than that beside the largest, the "
        "smaller ones are merged.",
    )
    rebuild_schedule: CronText = Field(
        "0 3 * * 0",
        description="When a server rebuilds each index that has changed since the last time, as "
        "cron has it (minute, hour, day, month, weekday), in `IMAGEDEX_TIME_ZONE`; empty: never.",
    )
    rebuild_share: float = Field(
        0.1,
        gt=0,
        description="When a job leaves more images added or gone than this share of the largest "
        "segment (and 5,000 at least), a rebuild makes all segments into one, beside other jobs.",
    )
    batch_images: int = Field(
        32,
        ge=1,
        le=256,
        description="Largest batch that the model may get at once; workers find the size itself "
        "by measurement, on the images that they index.",
    )
    lease_seconds: float = Field(
        15.0, gt=1, description="After this silence of its owner a job may be taken over."
    )
    ignore: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Globs of files and directories that scans pass over, separated by ':', beside "
        "those that they always pass over.",
    )

    settle_seconds: float = Field(
        2.0,
        ge=0,
        description="A scan takes a new or changed file when size and modification time have "
        "stayed the same for so long; it waits for that once, and leaves a file that is still "
        "being written to the next scan. 0 takes every file.",
    )
    removal_grace_seconds: float = Field(
        86_400.0,
        ge=0,
        description="A file that a scan does not find any more leaves the index with the first "
        "scan that is so much later.",
    )
    removal_share: float = Field(
        0.1,
        ge=0,
        le=1,
        description="A scan that would remove more than this share of the images that are known "
        "below its directory pauses and asks.",
    )

    @field_validator("ignore", mode="before")
    @classmethod
    def _split_globs(cls, value: Any) -> Any:
        return [part for part in value.split(":") if part] if isinstance(value, str) else value


class EngineSettings(_Group):
    """Workers on other machines, and how the engine reaches them."""

    inventory: Path | None = Field(
        None,
        description="A TOML file of the hosts that run workers, reached over SSH; without it "
        "all workers run on this machine. It needs the extra `imagedex[cluster]`.",
    )
    local_workers: int | None = Field(
        None,
        ge=0,
        le=256,
        description="Worker processes on this machine beside those of the inventory; 0 leaves all "
        "work to the others, where there is an inventory. By default `IMAGEDEX_INDEXING__WORKERS`.",
    )
    listen_host: str = Field(
        "0.0.0.0",  # noqa: S104 - Strangers are turned away by mutual TLS.
        description="Address that the engine listens on for the workers of other hosts, by mutual "
        "TLS; without an inventory it listens on this machine alone.",
    )
    listen_port: int = Field(
        8786, ge=0, le=65535, description="Its port, with an inventory; 0 takes any free one."
    )
    contact_address: str | None = Field(
        None,
        description="Address by which other hosts reach this machine; by default the one from "
        "which SSH connects to them.",
    )
    worker_ports: str = Field(
        "8790-8849",
        pattern=r"^(0|[0-9]{1,5}(-[0-9]{1,5})?)$",
        description="Ports that workers on other hosts listen on, for this machine; 0 takes any.",
    )
    ssh_known_hosts: Path | None = Field(
        None,
        description="File with the SSH keys of the hosts, by default `~/.ssh/known_hosts`. A host "
        "whose key is not in it is refused; nothing is added to it.",
    )
    ssh_keys: Annotated[tuple[Path, ...], NoDecode] = Field(
        (),
        description="Private SSH keys without passphrase, separated by ':'; by default the usual "
        "ones below `~/.ssh`.",
    )
    silent_seconds: float = Field(
        30.0,
        ge=5,
        description="A worker that shows no sign of life for so long is ended, and its chunks run "
        "elsewhere.",
    )

    @field_validator("ssh_keys", mode="before")
    @classmethod
    def _split_keys(cls, value: Any) -> Any:
        return (
            [part for part in value.split(os.pathsep) if part] if isinstance(value, str) else value
        )

    @field_validator("ssh_keys")
    @classmethod
    def _make_keys_absolute(cls, value: tuple[Path, ...]) -> tuple[Path, ...]:
        return tuple(Path(os.path.abspath(path.expanduser())) for path in value)  # noqa: PTH100 - as above.

    @field_validator("inventory", "ssh_known_hosts")
    @classmethod
    def _make_absolute(cls, value: Path | None) -> Path | None:
        return _absolute(value)

    @field_validator("worker_ports")
    @classmethod
    def _require_range(cls, value: str) -> str:
        first, _, last = value.partition("-")
        if not int(first) <= int(last or first) <= 65535:
            raise ValueError(f"{value!r} must be a range of ports, as 8790-8849")
        return value


class DecodingSettings(_Group):
    """What one picture may cost."""

    max_file_bytes: int = Field(512 * 1024 * 1024, gt=0, description="Larger files fail.")
    max_pixels: int = Field(300_000_000, gt=0, description="Pictures with more pixels fail.")
    timeout_seconds: float = Field(60.0, gt=0, description="A file that takes longer fails.")
    memory_bytes: int = Field(
        4 * 1024 * 1024 * 1024, gt=0, description="Address space of one decoder process."
    )
    reduced: bool = Field(
        True,
        description="Decode JPEGs at a fraction of their size when the model needs no more. It "
        "is part of a model's fingerprint: an index keeps the value that it was made with.",
    )


class EmbeddingSettings(_Group):
    """How the embedding model runs."""

    precision: Precision = Field(
        Precision.FP32,
        description="Of the model's arithmetic: `fp32`, `bf16` (needs a CPU that has it) or "
        "`int8` (made from your own images by `imagedex models quantize`). It is part of the "
        "fingerprint of an index.",
    )
    runtime: Runtime = Field(
        Runtime.AUTO,
        description="What runs the model: `openvino`, `onnxruntime`, `cuda`, or `auto` for what "
        "is fastest on this machine's CPU.",
    )


class SearchSettings(_Group):
    """Queries."""

    flat_min_rows: int = Field(
        5_000,
        ge=1,
        description="Smaller segments have no Faiss file: their vectors are read into memory from "
        "the Parquet file, so that adding a few images writes less. Applies to segments made from "
        "then on.",
    )
    ivf_min_rows: int = Field(
        50_000,
        ge=1000,
        description="Segments with so many images get inverted lists, which are searched many "
        "times faster; smaller ones are searched exactly. Applies to segments made from then on.",
    )
    min_recall: float = Field(
        0.99,
        gt=0,
        le=1,
        description="Share of the true best 10, 30 and 100 that inverted lists must find, as "
        "measured when they are made; where they do not, the segment is searched exactly.",
    )

    cache_entries: int = Field(
        1024,
        ge=0,
        description="Answers that are kept for each index's current generation, and how many "
        "vectors of texts are remembered; 0 keeps none.",
    )
    threads: int = Field(
        0,
        ge=0,
        le=256,
        description="Cores that encode the texts of queries; 0 takes all.",
    )


class SnapshotSettings(_Group):
    """Snapshots of indexes."""

    directory: Path | None = Field(
        None,
        description="Where snapshots lie, a directory below it for each index; by default beside "
        "each index, in `INDEX_PREFIX.snapshots`, where they share the index's files.",
    )

    schedule: CronText = Field(
        "",
        description="When a server makes one of each index, as cron has it (minute, hour, day, "
        "month, weekday), in `IMAGEDEX_TIME_ZONE`; empty: never.",
    )
    keep: int = Field(
        7,
        ge=1,
        le=1000,
        description="How many of the last scheduled snapshots of an index are kept.",
    )

    @field_validator("directory")
    @classmethod
    def _make_absolute(cls, value: Path | None) -> Path | None:
        return _absolute(value)


class BackupSettings(_Group):
    """Backups of the database that a server makes by itself."""

    schedule: CronText = Field(
        "30 2 * * *",
        description="When a server makes one, as cron has it (minute, hour, day, month, weekday), "
        "in `IMAGEDEX_TIME_ZONE`; empty: never.",
    )
    keep: int = Field(7, ge=1, le=1000, description="How many of the last backups are kept.")
    directory: Path | None = Field(
        None, description="Where they lie; by default in `backups` below the home."
    )

    @field_validator("directory")
    @classmethod
    def _make_absolute(cls, value: Path | None) -> Path | None:
        return _absolute(value)


class Settings(BaseSettings):
    """The whole tree."""

    model_config = SettingsConfigDict(
        env_prefix="IMAGEDEX_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        # A traceback would show what is given, secrets included.
        hide_input_in_errors=True,
    )

    home: Path = Field(
        default_factory=lambda: Path.home() / ".imagedex",
        description="Directory of the database, logs, models and the default index (mode 0700).",
    )
    image_roots: Annotated[tuple[Path, ...], NoDecode] = Field(
        (), description="Directories that may be read and served, separated by ':'."
    )
    index_prefix: Path | None = Field(
        None, description="Where the default index lies; by default 'index' below the home."
    )
    index_roots: Annotated[tuple[Path, ...], NoDecode] = Field(
        (),
        description="Directories below which a request may name an index, separated by ':'.",
    )
    model: str = Field(
        "bundled",
        description="The embedding model of new indexes: `bundled`, a name of `imagedex models "
        "list`, or the path of a directory with a model's files. An index keeps its own.",
    )
    database_url: SecretStr | None = Field(
        None,
        description="Where the database is: `sqlite:////path/to/file`, by default below the home, "
        "or `postgresql://user:password@host/name`, which needs "
        "`pip install 'imagedex[postgresql]'` and an index prefix outside of the home.",
    )
    database_url_file: Path | None = Field(
        None, description="A file that holds it, so that no environment shows it."
    )
    admin_key: SecretStr | None = Field(
        None, description="A key with all scopes, at least 16 characters long."
    )
    admin_key_file: Path | None = Field(
        None, description="A file that holds it, so that no environment shows it."
    )
    time_zone: str = Field(
        "UTC",
        description="Of the times in schedules, such as `Europe/Berlin`.",
    )
    log_level: str = Field(
        "info",
        pattern="^(debug|info|warning|error)$",
        description="Log level of `serve`: `debug`, `info`, `warning` or `error`.",
    )
    log_format: str = Field(
        "auto",
        pattern="^(auto|json|text)$",
        description="Log lines of `serve`: `json`, `text` for people, or `auto`: text on a "
        "terminal and JSON elsewhere.",
    )
    server: ServerSettings = ServerSettings()
    embedding: EmbeddingSettings = EmbeddingSettings()
    indexing: IndexingSettings = IndexingSettings()
    engine: EngineSettings = EngineSettings()
    decoding: DecodingSettings = DecodingSettings()
    search: SearchSettings = SearchSettings()
    snapshots: SnapshotSettings = SnapshotSettings()
    backup: BackupSettings = BackupSettings()

    @model_validator(mode="before")
    @classmethod
    def _read_secrets(cls, data: dict[str, Any]) -> dict[str, Any]:
        return with_secrets(data)

    @field_validator("image_roots", "index_roots", mode="before")
    @classmethod
    def _split_paths(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = [part for part in value.split(os.pathsep) if part]
        return value

    @field_validator("image_roots", "index_roots")
    @classmethod
    def _require_absolute(cls, value: tuple[Path, ...]) -> tuple[Path, ...]:
        for path in value:
            if not path.is_absolute():
                raise ValueError(f"{str(path)!r} must be an absolute path")
        return value

    @field_validator("home", "index_prefix")
    @classmethod
    def _make_absolute(cls, value: Path | None) -> Path | None:
        return _absolute(value)

    @field_validator("database_url")
    @classmethod
    def _require_shared_index(
        cls, value: SecretStr | None, info: ValidationInfo
    ) -> SecretStr | None:
        if value is not None and value.get_secret_value().startswith("postgresql"):
            home, index_prefix = info.data.get("home"), info.data.get("index_prefix")
            # Each controller has a home of its own, and the database names one index for all.
            if index_prefix is None or (home is not None and index_prefix.is_relative_to(home)):
                raise ValueError(
                    "with PostgreSQL, IMAGEDEX_INDEX_PREFIX must be set, to a directory outside of "
                    "IMAGEDEX_HOME that all controllers on this database reach by this path"
                )
        return value

    @field_validator("time_zone")
    @classmethod
    def _require_time_zone(cls, value: str) -> str:
        _cron("@daily", value)
        return value

    @field_validator("admin_key")
    @classmethod
    def _require_long_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < 16:
            raise ValueError("must be at least 16 characters long")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the base class names it.
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - likewise.
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What is given in code wins over the environment, which wins over the file."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    @property
    def effective_index_prefix(self) -> Path:
        """The default index."""
        return self.index_prefix or self.home / "index"

    @property
    def models_directory(self) -> Path:
        """Where models are installed."""
        return self.home / "models"

    @property
    def backups_directory(self) -> Path:
        """Where the backups of the database lie."""
        return self.backup.directory or self.home / "backups"

    def snapshots_of(self, index_prefix: Path) -> Path:
        """Where the snapshots of an index lie."""
        if self.snapshots.directory is None:
            return index_prefix.with_name(f"{index_prefix.name}.snapshots")
        # Indexes of one name in several places keep apart.
        digest = hashlib.sha256(os.fsencode(index_prefix)).hexdigest()[:8]
        return self.snapshots.directory / f"{index_prefix.name}-{digest}"

    @property
    def effective_database_url(self) -> str:
        """The database."""
        given = "" if self.database_url is None else self.database_url.get_secret_value()
        return given or f"sqlite:///{self.home / 'imagedex.db'}"


def load_settings(config: Path | None = None, **overrides: Any) -> Settings:
    """Read the settings; raises SettingsError that names each setting which is wrong."""

    class FromFile(Settings):
        model_config = SettingsConfigDict(toml_file=config)

    if config is not None and not config.is_file():
        raise SettingsError(f"There is no settings file {str(config)!r}; check --config.")
    try:
        return FromFile(**overrides)
    except ValidationError as error:
        lines = [
            ": ".join(filter(None, (".".join(map(str, problem["loc"])), problem["msg"])))
            for problem in error.errors()
        ]
        raise SettingsError("The settings cannot be used: " + "; ".join(lines)) from error
    except ValueError as error:
        raise SettingsError(f"The settings file {str(config)!r} is not TOML: {error}") from error
