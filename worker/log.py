"""Logs of the long-running processes, on stderr: lines for people, or JSON for programs."""

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from db.errors import GenmillError
from worker.settings import Settings

# libraries of targets; the hub's has an httpx of its own, and logs addresses that are signed
_TARGETS = ("httpx", "httpcore", "httpx2", "httpcore2", "asyncssh", "huggingface_hub")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "data"}


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {key}={value}" for key, value in _fields(record).items())
        text = f"{_time(record)} {record.levelname.lower():7} {record.getMessage()}{fields}"
        return text + (f"\n{self.formatException(record.exc_info)}" if record.exc_info else "")


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        data = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            data["exception"] = self.formatException(record.exc_info)
        return json.dumps(data, ensure_ascii=False, default=str)


def set_up_logging(settings: Settings) -> None:
    """Write log records to stderr, in the format and from the level of the settings."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if settings.log_format == "json" else _Text())
    logging.basicConfig(handlers=[handler], level=settings.log_level.upper(), force=True)
    logging.captureWarnings(capture=True)
    for noisy in (
        "celery",
        "kombu",
        "amqp",
        "botocore",
        "boto3",
        "urllib3",
        "s3transfer",
        "PIL",
        *_TARGETS,
    ):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.root.level))


@contextmanager
def surviving(log: logging.Logger, what: str) -> Iterator[None]:
    """Log whatever the block raises as `what`, and go on: for threads that must never end."""
    try:
        yield
    except GenmillError as error:
        log.warning("%s: %s", what, error)
    except BaseException:  # native code raises what is no Exception
        log.exception(what)


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
