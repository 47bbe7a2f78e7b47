"""The settings, from the environment and `.env` in the working folder.

Only this module and `environment` read them. A `.env` that another user could have written is not
read; a warning says so, and which settings any other one gives.
"""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    SettingsConfigDict,
)

from db.errors import Refused, Unreachable
from db.path_errors import reading, shown
from db.sharing import share_new_files
from worker import own_broker
from worker.complaints import expectation, explain, matching
from worker.environment import ENV_FILE, PREFIX, default_home, env_file_fault, sqlite_url
from worker.failpoints import parse
from worker.redis_address import RedisAddress, parse_redis_url
from worker.specs import Name

log = logging.getLogger(__name__)

ENV_FILE_REMEDY = (
    "if you trust it, make it and its folder your own and writable by you alone (chown, chmod go-w)"
)

Device = Annotated[str, matching(r"auto|cpu|cuda(:\d+)?", "use auto, cpu, cuda or cuda:0")]


class Settings(BaseSettings):
    """Everything that can be set from outside. URLs that may hold a password are secret."""

    model_config = SettingsConfigDict(env_prefix="GENMILL_", extra="ignore", frozen=True)

    home: Path = Field(
        default_factory=default_home,
        description="folder of this machine's data; default: genmill in the XDG data folder",
    )
    database_url: SecretStr | None = Field(
        None, description="SQLAlchemy URL of the database; default: SQLite in the home"
    )
    redis_url: SecretStr | None = Field(
        None, description="redis://, rediss:// or unix:// URL; default: the embedded broker"
    )
    store_url: str | None = Field(
        None, description="file:///folder or s3://bucket/prefix; default: a folder in the home"
    )
    s3_endpoint_url: str | None = Field(
        None, description="URL of an S3 server other than AWS: MinIO, R2, Ceph"
    )
    store_encryption: Literal["none", "aes-256-gcm"] = Field(
        "none",
        description="whether objects are encrypted in the store, from its first use on: none or "
        "aes-256-gcm",
    )
    device: Device = Field(
        "auto", description="where models run: auto (a GPU if there is one), cpu, cuda or cuda:0"
    )
    precision: Literal["fp32", "bf16"] = Field(
        "fp32", description="number format of the networks' arithmetic"
    )
    threads: int = Field(
        0,
        ge=0,
        description="CPU threads of a worker; 0: chosen by measuring, up to OMP_NUM_THREADS or all "
        "cores (with `genmill up`, up to its share of them)",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least severe log lines to write"
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="log lines for people or for programs"
    )
    pager: str | None = Field(
        None,
        description="program that shows long output on a terminal page by page; cat: none; "
        "default: that of PAGER, or less",
    )
    lease_s: float = Field(
        60, gt=0, description="seconds without a heartbeat after which a worker loses its shard"
    )
    loop_s: float = Field(5, gt=0, description="seconds between two rounds of the scheduler")
    deadline_s: float = Field(
        120, gt=0, description="seconds after which an unanswered doorbell is rung again"
    )
    shard_s: float = Field(10, gt=0, description="seconds that a shard should take at most")
    max_failures: int = Field(
        3, ge=1, description="failures after which a shard has failed for good"
    )
    max_claims: int = Field(
        8,
        ge=1,
        description="claims lost without a new checkpoint after which a shard has failed for good",
    )
    hang_s: float = Field(
        900,
        gt=0,
        description="seconds without progress after which a shard has failed, or the scheduler is "
        "started again",
    )
    failpoint: str = Field("", description="for tests: where a worker crashes or waits")
    key_file: Path | None = Field(
        None,
        description="file of the installation key, which wraps all others; it must exist; default: "
        "keys/master.key in the home, made when it is first needed",
    )
    key_command: str | None = Field(
        None,
        description="command that wraps keys in place of such a file, as a KMS does: it gets "
        "`wrap` or `unwrap` as its last argument, and bytes on stdin, and writes bytes to stdout",
    )
    tenant: Name = Field(
        "default", description="whose keys mark what the jobs make that are submitted from here"
    )
    marks: str = Field(
        "none",
        description="profile of marks of generated samples, unless the job or its model has one: "
        "none, eu-art50, cn-gb45438, or the path of a TOML file",
    )
    loaded_bytes: int = Field(
        2 * 2**30, ge=0, description="limit of the networks that a worker keeps in memory, in bytes"
    )
    cache_bytes: int = Field(
        4 * 2**30, ge=0, description="limit of the cache of datasets and weights on disk, in bytes"
    )

    keep_history_days: float = Field(
        90,
        ge=0,
        le=36_500,
        description="days after a job's end for which its changes of state and its attempts are "
        "kept; 0: for ever",
    )
    keep_logs_days: float = Field(
        90, ge=0, le=36_500, description="the same for its log; 0: for ever"
    )
    keep_curves_days: float = Field(
        365, ge=0, le=36_500, description="the same for the points of its curves; 0: for ever"
    )
    keep_previews_days: float = Field(
        365, ge=0, le=36_500, description="the same for its previews; 0: for ever"
    )
    keep_artifacts_days: float = Field(
        0,
        ge=0,
        le=36_500,
        description="the same for its other artifacts and its checkpoints, but not for the weights "
        "of model versions; 0: for ever",
    )

    @field_validator("*", mode="before")
    @classmethod
    def _empty_is_unset(cls, value: object, info: ValidationInfo) -> object:
        if value != "" or info.field_name is None:
            return value
        return cls.model_fields[info.field_name].get_default(call_default_factory=True)

    @field_validator("failpoint")
    @classmethod
    def _names_failpoints(cls, value: str) -> str:
        parse(value)
        return value

    @cached_property
    def database(self) -> str:
        """The SQLAlchemy URL in use, password included: never print it."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return sqlite_url(self.home)

    @cached_property
    def store(self) -> str:
        """The object store's URL in use."""
        return self.store_url or (self.home / "store").absolute().as_uri()

    @property
    def broker(self) -> RedisAddress:
        """Where the broker is.

        Without `redis_url`, it is read from the file that `genmill up` writes when it starts the
        embedded broker, each time anew, because that may happen later. Raises `Unreachable` if
        there is no such file, or it came here with a copied or moved home, and `Refused` if
        `redis_url` is not the URL of a Redis server.
        """
        if self.redis_url is not None:
            return parse_redis_url(self.redis_url.get_secret_value())
        address = own_broker.read_address(self.broker_file)
        if came_from := own_broker.origin(address, self.broker_file.parent):
            raise Unreachable(
                f"no broker runs in {self.home.absolute()}, which was copied or moved from "
                f"{came_from}",
                remedy="start its own with `genmill up`",
            )
        return address

    @property
    def broker_client(self) -> str:
        """The broker's URL for redis-py's `Redis.from_url`, password included: never print it."""
        return self.broker.client_url

    @cached_property
    def broker_file(self) -> Path:
        """The file that holds the embedded broker's URL, readable by its owner alone."""
        return self.home / "run" / "broker.url"

    @cached_property
    def scheduler_file(self) -> Path:
        """A file that this home's scheduler touches before each round, as a sign of life."""
        return self.home / "run" / "scheduler.alive"

    @cached_property
    def master_key(self) -> Path:
        """The file of the installation key, where no command wraps keys."""
        return self.key_file or self.home / "keys" / "master.key"

    @cached_property
    def cache(self) -> Path:
        """The folder of datasets and weights fetched from the store. It may be deleted."""
        return self.home / "cache"

    def child_environment(self, **changes: object) -> dict[str, str]:
        """The environment of a child process that shall read these settings, with `changes`.

        Unset settings are passed as empty, so that a `.env` cannot change them.
        """
        values = {name: getattr(self, name) for name in type(self).model_fields}
        values |= {"home": self.home.absolute(), **changes}
        ours = {}
        for name, value in values.items():
            plain = value.get_secret_value() if isinstance(value, SecretStr) else value
            ours[f"GENMILL_{name.upper()}"] = "" if plain is None else str(plain)
        # pydantic reads settings whatever the case of their names
        return {k: v for k, v in os.environ.items() if k.upper() not in ours} | ours


def read_settings() -> Settings:
    """The settings as they are given now. Raises `Refused`, naming each wrong one.

    Logs a warning about a `.env`: which settings it gives, or why it is not read. In a home that a
    group shares, the files that this process makes from now on are the group's, too.
    """
    if fault := env_file_fault():
        log.warning("%s is not read: %s; %s", ENV_FILE.absolute(), fault, ENV_FILE_REMEDY)
    try:
        with _reading_env_file():
            settings, told = Settings(_env_file=_env_file()), env_file_line()
    except ValidationError as error:
        raise Refused(f"environment GENMILL_*: {explain(error, Settings)}") from None
    if told is not None:  # whoever works in a folder from strangers must see where that leads
        log.warning("%s", told)
    share_new_files(settings.home)
    return settings


class Wrong(NamedTuple):
    """A setting that cannot be used: its value as it was given, and why."""

    given: str
    why: str


def read_leniently(*, with_file: bool = True) -> tuple[Settings, dict[str, Wrong]]:
    """The settings, with defaults in place of wrong ones, and the wrong ones by name, to report.

    Raises `Refused` for a `.env` that cannot be read, unless it is left out.
    """
    file = _env_file() if with_file else None
    with _reading_env_file():
        try:
            return Settings(_env_file=file), {}
        except ValidationError as error:
            wrong = {
                str(each["loc"][0]): Wrong(str(each["input"]), expectation(each))
                for each in error.errors(include_url=False)
            }
        fields = Settings.model_fields
        defaults = {name: fields[name].get_default(call_default_factory=True) for name in wrong}
        return Settings(_env_file=file, **defaults), wrong


@contextmanager
def _reading_env_file() -> Iterator[None]:
    try:
        with reading(ENV_FILE):
            yield
    except UnicodeDecodeError as error:
        raise Refused(
            f".env is not UTF-8: byte {error.object[error.start]:#04x} at offset {error.start}",
            remedy="save the file as UTF-8",
        ) from None


def settings_given() -> dict[str, Path | None]:
    """The settings that are given, unknown ones included: `HOME` for `GENMILL_HOME`.

    Each with the `.env` that gives it, or None if the environment does. Raises `Refused` for a
    `.env` that cannot be read.
    """
    environment = EnvSettingsSource(Settings).env_vars
    with _reading_env_file():
        in_file = DotEnvSettingsSource(Settings, env_file=_env_file()).env_vars
    found: dict[str, Path | None] = dict.fromkeys(
        _names({name: value for name, value in in_file.items() if name not in environment}),
        ENV_FILE.absolute(),
    )
    return dict(sorted((found | dict.fromkeys(_names(environment))).items()))


def env_file_line() -> str | None:
    """A line that says which settings a `.env` gives; None if none does."""
    given = [shown(f"{PREFIX}{name}") for name, file in settings_given().items() if file]
    if not given:
        return None
    return f"settings from {shown(ENV_FILE.absolute())}: {', '.join(given)}"


def _names(values: Mapping[str, str | None]) -> set[str]:
    names = {name.upper() for name, value in values.items() if value}
    return {name.removeprefix(PREFIX) for name in names if name.startswith(PREFIX)}


def _env_file() -> Path | None:
    return None if env_file_fault() else ENV_FILE


def limit_threads(threads: int) -> None:
    """Limit numerical libraries to `threads` CPU threads, or not if 0. Call before their import."""
    # A waiting thread that spins for long holds a core that others need: with more work than cores,
    # training took twenty times as long. One that sleeps at once wakes too late for the next small
    # step: on an idle machine, sampling took six times as long. So many turns last some tens of
    # microseconds.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    # with two buffer sizes, the results of cuDNN's recurrent layers may differ from run to run
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if threads:
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            os.environ[name] = str(threads)
