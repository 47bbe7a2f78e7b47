"""Profiles: which marks go together. Three are built in; others are TOML files of users'.

A profile promises no legal compliance: it says what is done, and `genmill provenance verify` shows
whether it was.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import JsonValue, ValidationError

from db.errors import BadInput, GenmillError, Refused
from worker.complaints import as_given, explain
from worker.files import read_toml
from worker.mark_profile import BUILT_IN, NONE, Profile, names_file
from worker.marks import MARKS, find_mark
from worker.media.base import Medium
from worker.specs import check_name, parse_params

MAX_BYTES = 64 << 10  # of a file
_KEYS = ("name", "like", "marks")  # of a file; all others are marks


def complete(asked: Profile, medium: Medium) -> Profile | None:
    """The profile that a reference means for samples of a medium, with every setting of its marks.

    None if it has no marks. One that is complete already is only checked. Raises `Refused`, or
    `BadInput` for a file.
    """
    found = looked_up(asked)
    if not found.marks:
        return None
    settings = {name: _settings(found, name, medium) for name in sorted(set(found.marks))}
    return found.model_copy(update={"marks": tuple(settings), "settings": settings})


def purposes(profile: Profile) -> set[str]:
    """What the marks of a profile need keys for."""
    return {purpose for name in profile.marks for purpose in find_mark(name).purposes}


def looked_up(asked: Profile) -> Profile:
    """What a reference means: a built-in profile, or that of a file. Others are as they are."""
    if asked.marks:
        return asked
    if asked.name in BUILT_IN:
        return Profile(name=asked.name, marks=BUILT_IN[asked.name])
    if names_file(asked.name):
        return read_profile(Path(asked.name))
    error = Refused.unknown("profile of marks", asked.name, BUILT_IN)
    error.remedy = f"{error.remedy}, or give a file: {asked.name}.toml"
    raise error


def is_same(asked: Profile | None, stored: Profile | None) -> bool:
    """Whether a request for marks is one for those of a stored spec; no request is for any."""
    if asked is None:
        return True
    wanted = looked_up(asked)
    if stored is None or not wanted.marks:
        return not wanted.marks and (stored is None or not looked_up(stored).marks)
    given = {(mark, name): value for mark, name, value in _each_setting(wanted)}
    found = {(mark, name): value for mark, name, value in _each_setting(stored)}
    same = wanted.name == stored.name and set(wanted.marks) == set(stored.marks)
    return same and all(found.get(each) == value for each, value in given.items())


def _each_setting(profile: Profile) -> Iterator[tuple[str, str, JsonValue]]:
    for mark, settings in profile.settings.items():
        for name, value in settings.items():
            yield mark, name, value


def read_profile(path: Path) -> Profile:
    """The profile in a TOML file. Raises `BadInput`, naming what is wrong with it.

    `marks` lists its marks, beside those of the built-in profile that it is `like`; a table of a
    mark's name has its settings; `name` is that of the file if it has none.
    """
    data = read_toml(path, "profile", limit_bytes=MAX_BYTES)
    try:
        return _profile(data, path)
    except BadInput:
        raise
    except GenmillError as error:
        raise BadInput(f"the profile {path}: {error.message}", remedy=error.remedy) from None


def _profile(data: dict[str, Any], path: Path) -> Profile:
    name, like = data.pop("name", path.stem), data.pop("like", NONE)
    listed = data.pop("marks", [])
    if not isinstance(name, str) or not isinstance(like, str) or not isinstance(listed, list):
        raise Refused("`name` and `like` are texts, `marks` is a list of names")
    check_name("profile of marks", name)
    if name in BUILT_IN:
        raise Refused(f"{name!r} is the name of a built-in profile", remedy="choose another name")
    if like not in BUILT_IN:
        raise Refused.unknown("built-in profile", like, BUILT_IN)
    marks = (*BUILT_IN[like], *listed)
    for each in marks:
        if each not in MARKS:
            raise Refused.unknown("mark", str(each), MARKS)
    if not marks:
        raise Refused("it has no marks", remedy=f"list some of: {', '.join(MARKS)}")
    _refuse_strange(data, marks)
    try:
        return Profile(name=name, marks=marks, settings=data)
    except ValidationError as error:
        raise Refused(explain(error, Profile, whole="profile")) from None


def _refuse_strange(tables: dict[str, Any], marks: tuple[str, ...]) -> None:
    """Refuse keys of a file that are neither its own nor tables of its marks."""
    for key, value in tables.items():
        if key not in marks:
            known = (*_KEYS, *marks)
            raise Refused.unknown("key", key, known, of="the profile")
        if not isinstance(value, dict):
            raise Refused(f"{key} is {as_given(value)}, not a table", remedy=f"write [{key}]")


def _settings(profile: Profile, name: str, medium: Medium) -> dict[str, Any]:
    """The settings of one of a profile's marks, with its defaults."""
    mark = find_mark(name)
    told = parse_params(mark.schema, profile.settings.get(name, {}), what=f"mark {name}")
    mark.check(told, medium)
    return told.model_dump(mode="json")
