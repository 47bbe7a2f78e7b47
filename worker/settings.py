"""The settings, and the only reader of the environment (and of `.env` in the working folder)."""

import os
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    SettingsConfigDict,
)

from db.errors import Refused, Unreachable
from worker.specs import explain, spelled

_BROKER_SCHEMES = {"redis", "rediss", "unix", "redis+socket"}
_BROKER_FORMS = (
    "use redis://[:password@]host:port/0, rediss://... (TLS) or unix://[:password@]/path/to.sock"
)


def _default_home() -> Path:
    """Genmill's folder in the XDG data folder (XDG Base Directory Specification 0.8)."""
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "genmill"


class Settings(BaseSettings):
    """Everything that can be set from outside. URLs that may hold a password are secret."""

    model_config = SettingsConfigDict(
        env_prefix="GENMILL_", env_file=".env", extra="ignore", frozen=True
    )

    home: Path = Field(
        default_factory=_default_home, description="where this machine keeps its data"
    )
    database_url: SecretStr | None = Field(None, description="default: SQLite under the home")
    redis_url: SecretStr | None = Field(None, description="default: the embedded broker")
    store_url: str | None = Field(None, description="file:///path or s3://bucket/prefix")
    s3_endpoint_url: str | None = Field(None, description="for MinIO, R2, Ceph")
    device: Annotated[str, spelled(r"auto|cpu|cuda(:\d+)?", "use auto, cpu, cuda or cuda:0")] = (
        "auto"
    )
    precision: Literal["fp32", "bf16"] = "fp32"
    threads: int = Field(0, ge=0, description="CPU threads of one worker; 0: all cores")
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["text", "json"] = "text"
    lease_s: float = Field(60, gt=0, description="a claim lasts this long without a heartbeat")
    loop_s: float = Field(5, gt=0, description="pause between two rounds of dispatching")
    deadline_s: float = Field(
        120, gt=0, description="an unanswered doorbell is rung again after this"
    )
    shard_s: float = Field(10, gt=0, description="target duration of one shard")
    max_failures: int = Field(
        3, ge=1, description="failures after which a shard has failed for good"
    )
    max_claims: int = Field(
        8, ge=1, description="lost claims after which a shard has failed for good"
    )
    hang_s: float = Field(
        900, gt=0, description="a shard that reports no progress for this long has failed"
    )
    failpoint: str = Field("", description="for tests: where a worker crashes or waits")
    loaded_bytes: int = Field(
        2 * 2**30, ge=0, description="weights that a worker keeps in memory, at most"
    )
    cache_bytes: int = Field(
        4 * 2**30, ge=0, description="local cache of datasets and weights, at most"
    )

    @field_validator("database_url", "redis_url", "store_url", "s3_endpoint_url", mode="before")
    @classmethod
    def _empty_is_unset(cls, value: object) -> object:
        return None if value == "" else value

    @cached_property
    def database(self) -> str:
        """The SQLAlchemy URL in use, password included: never print it."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return f"sqlite:///{self.home / 'genmill.db'}"

    @cached_property
    def store(self) -> str:
        """The object store's URL in use."""
        return self.store_url or (self.home / "store").absolute().as_uri()

    @property
    def broker(self) -> str:
        """Celery's broker URL, password included: never print it.

        Without `redis_url` it is what `genmill up` wrote when it started the embedded broker, read
        anew each time, because that may come later. Raises `Unreachable` where it was never
        written, and `Refused` where `redis_url` is not the URL of a Redis server.
        """
        if self.redis_url is not None:
            url = _checked_broker(self.redis_url.get_secret_value())
            return url.replace("unix://", "redis+socket://", 1)
        try:
            return self.broker_file.read_text("utf-8").strip()
        except OSError as error:
            raise Unreachable(
                f"no broker: {self.broker_file} cannot be read ({error.strerror})",
                remedy="start this machine's own with `genmill up`, or set GENMILL_REDIS_URL",
            ) from None

    @property
    def broker_client(self) -> str:
        """The same broker's URL as redis-py's `Redis.from_url` wants it."""
        return self.broker.replace("redis+socket://", "unix://", 1)

    @cached_property
    def broker_file(self) -> Path:
        """Where the embedded broker's URL is kept, readable by its owner alone."""
        return self.home / "run" / "broker.url"

    @cached_property
    def scheduler_file(self) -> Path:
        """Touched by this home's scheduler before each round, as a sign of life."""
        return self.home / "run" / "scheduler.alive"

    @cached_property
    def cache(self) -> Path:
        """Where datasets and weights fetched from the store are kept. It may be deleted."""
        return self.home / "cache"

    def child_environment(self, **changes: object) -> dict[str, str]:
        """The whole environment for a child process to read these settings from, with `changes`.

        Every setting is passed, unset ones as empty, so that no `.env` changes any.
        """
        values = {name: getattr(self, name) for name in type(self).model_fields}
        values |= {"home": self.home.absolute(), **changes}
        ours = {}
        for name, value in values.items():
            plain = value.get_secret_value() if isinstance(value, SecretStr) else value
            ours[f"GENMILL_{name.upper()}"] = "" if plain is None else str(plain)
        # settings are read whatever the case of their names
        return {k: v for k, v in os.environ.items() if k.upper() not in ours} | ours


def _checked_broker(url: str) -> str:
    """The URL, if it is one of a Redis server. Errors do not show it: it may hold a password."""
    try:
        parts = urlsplit(url)
        number = parts.path.strip("/") if parts.scheme in {"redis", "rediss"} else ""
        _ = (parts.port, int(number or 0))  # reading them checks them
    except ValueError:  # of a port or a database that is no number
        raise Refused("GENMILL_REDIS_URL cannot be read", remedy=_BROKER_FORMS) from None
    if parts.scheme not in _BROKER_SCHEMES:
        raise Refused(f"GENMILL_REDIS_URL is of kind {parts.scheme[:20]!r}", remedy=_BROKER_FORMS)
    return url


def read_settings() -> Settings:
    """The settings that the environment holds now. Raises `Refused`, naming what is wrong."""
    try:
        return Settings()
    except ValidationError as error:
        raise Refused(f"environment GENMILL_*: {explain(error)}") from None
    except UnicodeDecodeError as error:
        raise Refused(
            f".env: not UTF-8: byte {error.object[error.start]:#04x} at offset {error.start}",
            remedy="save the file as UTF-8",
        ) from None


def given_names() -> set[str]:
    """Settings named in the environment and `.env`, unknown ones too: `HOME` for `GENMILL_HOME`."""
    given = {**DotEnvSettingsSource(Settings).env_vars, **EnvSettingsSource(Settings).env_vars}
    names = {name.upper() for name, value in given.items() if value}
    return {name.removeprefix("GENMILL_") for name in names if name.startswith("GENMILL_")}


def limit_threads(threads: int) -> None:
    """Let numerical libraries use `threads` CPU threads (0: all). Call it before importing them."""
    # A waiting thread that spins for long holds a core that others need: on a machine with more
    # work than cores, training took twenty times as long. One that sleeps at once wakes too late
    # for the next small step: on an idle machine, sampling took six times as long. This many turns
    # last some tens of microseconds.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    # with two buffer sizes, the results of cuDNN's recurrent layers may differ from run to run
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if threads:
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            os.environ[name] = str(threads)
