"""The settings in use, where each comes from, and what is wrong with those that are given."""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dotenv.parser import parse_stream

from db.database_url import parse_url
from db.errors import GenmillError, Refused
from db.path_errors import reading, shown
from worker.environment import ENV_FILE, PREFIX, default_pager, env_file_fault
from worker.mark_profile import Profile
from worker.redis_address import parse_redis_url
from worker.settings import ENV_FILE_REMEDY, Settings, Wrong, read_leniently, settings_given
from worker.store.address import parse_store_url

Document = dict[str, Any]

HIDDEN = "***"
# the password of user:password@, and the values of options that hold secrets
_PASSWORD = re.compile(r"(?<=://)([^/?#@:]*):.*@")
_SECRETS = re.compile(r"([?&][^=&]*(?:pass|secret|token|key)[^=&]*=)[^&]*", re.IGNORECASE)

# settings whose text is taken apart only where it is used
_PARSERS: Mapping[str, Callable[[str], object]] = {
    "database_url": parse_url,
    "redis_url": parse_redis_url,
    "store_url": parse_store_url,
    "s3_endpoint_url": lambda text: parse_store_url("s3://bucket", s3_endpoint_url=text),
}


def settings_in_use() -> list[Document]:
    """Every setting: `setting`, `value`, `default`, `source` and `meaning`. Passwords are masked.

    A wrong value is shown as it was given. Raises `Refused` for a `.env` that cannot be read.
    """
    settings, wrong = read_leniently()
    given = settings_given()
    return [
        {
            "setting": f"{PREFIX}{name.upper()}",
            "value": wrong[name].given if name in wrong else _value(settings, name),
            "default": _text(field.get_default(call_default_factory=True)),
            "source": _source(given, name),
            "meaning": str(field.description),
        }
        for name, field in Settings.model_fields.items()
    ]


def check_settings() -> list[Document]:
    """Each setting that is given, known or not: `setting`, `ok`, `found` and `remedy`.

    And the `.env` of the working folder if it cannot or must not be read.
    """
    try:
        settings, wrong = read_leniently()
        given = settings_given()
    except Refused as error:
        return [_check(str(ENV_FILE), error)]
    checks = [_check(str(ENV_FILE), error) for error in _unreadable_lines()]
    if fault := env_file_fault():
        refused = Refused(f"{ENV_FILE.absolute()} is not read: {fault}", remedy=ENV_FILE_REMEDY)
        checks.append(_check(str(ENV_FILE), refused))
    for name in given:
        problem = _problem(settings, name, wrong.get(name.lower()))
        checks.append(_check(f"{PREFIX}{name}", problem, _source(given, name)))
    return checks


def _unreadable_lines() -> Iterator[Refused]:
    """The lines of a `.env` that say nothing, which whoever reads it passes over."""
    if env_file_fault() or not ENV_FILE.is_file():
        return
    with reading(ENV_FILE), ENV_FILE.open(encoding="utf-8") as lines:
        for each in parse_stream(lines):
            if each.error:
                yield Refused(  # without its text, which may be a password
                    f"line {each.original.line} is no setting",
                    remedy="write NAME=VALUE, or begin the line with #",
                )


def _problem(settings: Settings, name: str, wrong: Wrong | None) -> GenmillError | None:
    """What is wrong with a setting, if anything is."""
    field = Settings.model_fields.get(name.lower())
    if field is None:
        known = {each.upper() for each in Settings.model_fields}
        error = Refused.unknown(f"{PREFIX} setting", name, known)
        return Refused(error.message, remedy="correct the name, or remove the setting")
    if wrong is not None:
        remedy = f"correct or remove it; its meaning: {field.description}"
        return Refused(f"{wrong.why} (got {wrong.given[:80]!r})", remedy=remedy)
    if name.lower() == "home":
        return _folder_problem(settings.home)
    if name.lower() == "marks":
        return _profile_problem(settings)
    if name.lower() in {"key_file", "key_command"}:
        return _key_problem(settings)
    return _address_problem(settings, name.lower())


def _folder_problem(path: Path) -> Refused | None:
    """What keeps a path from being a folder, or from becoming one."""
    for part in (*reversed(path.parents), path):
        if part.exists() and not part.is_dir():
            return Refused(f"{shown(part)} is not a folder", remedy="give a folder")
    return None


def _profile_problem(settings: Settings) -> Refused | None:
    """What is wrong with the profile of marks."""
    from worker.marks.profiles import looked_up  # noqa: PLC0415 - loads what reads every medium

    try:
        looked_up(Profile(name=settings.marks))
    except Refused as error:
        return error
    return None


def _key_problem(settings: Settings) -> GenmillError | None:
    """What is wrong with the installation key; a command is taken apart, and not run."""
    from worker.keys.master import CommandMaster, FileMaster  # noqa: PLC0415 - loads cryptography

    try:
        if settings.key_command is not None:
            CommandMaster(settings.key_command)
        elif settings.key_file is not None:
            FileMaster(settings.key_file).wrap(b"", "a trial")
    except GenmillError as error:
        return error
    return None


def _address_problem(settings: Settings, name: str) -> Refused | None:
    """What is wrong with an address, which is taken apart only where it is used."""
    text = _text(getattr(settings, name))
    try:
        if name in _PARSERS and text is not None:
            _PARSERS[name](text)
    except Refused as error:
        return error
    return None


def _check(setting: str, problem: GenmillError | None, source: str = "") -> Document:
    return {
        "setting": setting,
        "ok": problem is None,
        "found": problem.message if problem else f"from {source}",
        "remedy": (problem.remedy or "") if problem else "",
    }


def _source(given: Mapping[str, Path | None], name: str) -> str:
    """Where a setting comes from."""
    if name.upper() not in given:
        return "default"
    file = given[name.upper()]
    return shown(file) if file else "environment"


def _value(settings: Settings, name: str) -> str | None:
    """What is in use, also where a default follows from other settings."""
    implied = {"database_url": "database", "store_url": "store", "key_file": "master_key"}
    value = getattr(settings, implied.get(name, name))
    if name == "pager" and value is None:
        value = default_pager()
    text = _text(value)
    if name == "key_command" and text:
        program, *arguments = text.split(maxsplit=1)
        return f"{program} {HIDDEN}" if arguments else program  # any of them may be a password
    if text is None or name not in _PARSERS:
        return text
    # of one that cannot be taken apart, any part may be a password
    return HIDDEN if _address_problem(settings, name) else _masked(text)


def _masked(url: str) -> str:
    """A URL without its password and other secrets."""
    return _SECRETS.sub(rf"\g<1>{HIDDEN}", _PASSWORD.sub(rf"\g<1>:{HIDDEN}@", url))


def _text(value: Any) -> str | None:
    """A setting's value, with passwords, as text; None if it is not set."""
    if value is None:
        return None
    if isinstance(value, float):
        return f"{value:.15g}"
    secret = getattr(value, "get_secret_value", None)
    return str(secret() if secret else value)
