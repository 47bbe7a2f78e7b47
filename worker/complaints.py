"""What is wrong with a value that a user gave, in words for whoever wrote the file or the line."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, time
from typing import Any, get_args

from pydantic import AfterValidator, BaseModel, Tag, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from db.errors import Refused

SHOWN = 80  # characters of a value
_TABLE = "expected a table of keys and values"
_EXPECTED = {  # by pydantic's type of an error; its own words are for those who program in Python
    "missing": "needed, but not given",
    "none_required": "expected nothing",
    **dict.fromkeys(("string_type", "string_sub_type", "string_unicode"), "expected a text"),
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "expected a whole number"),
    "int_parsing_size": "expected a whole number of fewer digits",
    **dict.fromkeys(("float_type", "float_parsing"), "expected a number"),
    "finite_number": "expected a finite number",
    **dict.fromkeys(("bool_type", "bool_parsing"), "expected true or false"),
    "path_type": "expected a path",
    **dict.fromkeys(("list_type", "tuple_type", "set_type", "frozen_set_type"), "expected a list"),
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), _TABLE),
    "invalid-json-value": "expected a text, a number, true, false, a list or a table",
    **dict.fromkeys(("literal_error", "enum"), "expected {expected}"),
    "greater_than": "expected more than {gt}",
    "greater_than_equal": "expected at least {ge}",
    "less_than": "expected less than {lt}",
    "less_than_equal": "expected at most {le}",
    "string_too_short": "expected a text of {min_length} characters or more",
    "string_too_long": "expected a text of at most {max_length} characters",
    "too_short": "expected a list of {min_length} entries or more",
    "too_long": "expected a list of at most {max_length} entries",
}


def matching(pattern: str, rule: str) -> AfterValidator:
    """Refuse a string that does not match `pattern`; `rule` says in words what to use."""
    fits = re.compile(pattern).fullmatch

    def check(value: str) -> str:
        if not fits(value):
            raise PydanticCustomError("pattern", "{rule}", {"rule": rule})
        return value

    return AfterValidator(check)


def explain(error: ValidationError, schema: object = None, *, whole: str = "spec") -> str:
    """All complaints of a validation in one line, each as `field: complaint (got value)`.

    `schema` is what was validated against: a model, or a union of them. Where a complaint is about
    no single field, `whole` stands for the field.
    """
    complaints = (_complaint(item, schema, whole) for item in error.errors(include_url=False))
    return ", and ".join(complaints)


def expectation(item: ErrorDetails) -> str:
    """What one error of a validation says that the value should be, without the value."""
    text = _EXPECTED.get(item["type"])
    if text is not None:
        return text.format_map({key: _plain(value) for key, value in item.get("ctx", {}).items()})
    message = item["msg"].replace("Input should be", "expected", 1)
    return message[:1].lower() + message[1:]


def as_given(value: object) -> str:
    """A value as the user may have written it, shortened: as JSON, a text in single quotes."""
    if isinstance(value, str):
        return repr(value[:SHOWN])
    if isinstance(value, float | date | time):  # TOML has infinite numbers and dates, JSON not
        return str(value)
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except (ValueError, RecursionError):
        text = str(value)
    return text[:SHOWN] if text.isprintable() else ascii(text[:SHOWN])


def _complaint(item: ErrorDetails, schema: object, whole: str) -> str:
    field, keys = _place(item, schema)
    if item["type"] == "extra_forbidden":
        outer, _, key = field.rpartition(".")
        return str(Refused.unknown("key", key, keys, of=outer or f"the {whole}"))
    if item["type"] == "union_tag_not_found":
        return f"{whole}: a kind is needed: {_kinds(schema)}"
    if item["type"] == "union_tag_invalid":
        return f"kind: expected {_kinds(schema)} (got {as_given(item['input']['kind'])})"
    got = "" if item["type"] == "missing" else f" (got {as_given(item['input'])})"
    return f"{field or whole}: {expectation(item)}{got}"


def _place(item: ErrorDetails, schema: object) -> tuple[str, Sequence[str]]:
    """Which field an error is about, as `guard #1.metric`, and the keys that may stand there.

    pydantic's path has, besides, which member of a union was tried.
    """
    field, within, keys = "", schema, list[str]()
    inner = item["type"] == "invalid-json-value"
    for part in item["loc"]:
        models, tags = _members(within)
        if isinstance(part, int):
            field += f" #{part + 1}"
        elif part in models:
            within = models[part]
        elif part not in tags and not (inner and part in {"dict", "list"}):
            fields = {name: about for each in models.values() for name, about in _fields(each)}
            keys, within = list(fields), fields.get(part)
            field += f".{part}" if field else part
    return field.strip(), keys


def _plain(value: Any) -> Any:
    """A limit as people write it: 1, not 1.0."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _members(annotation: object) -> tuple[Mapping[str, type[BaseModel]], set[str]]:
    """The models in an annotation, by their kind or name, and the tags of what are none."""
    found = list(_walk(annotation))
    models = {_kind(each) or each.__name__: each for each in found if not isinstance(each, Tag)}
    return models, {each.tag for each in found if isinstance(each, Tag)}


def _walk(annotation: Any) -> Iterator[type[BaseModel] | Tag]:
    is_model = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    if is_model or isinstance(annotation, Tag):
        yield annotation
    for each in get_args(annotation):
        yield from _walk(each)


def _fields(model: type[BaseModel]) -> Iterator[tuple[str, object]]:
    return ((name, field.annotation) for name, field in model.model_fields.items())


def _kind(model: type[BaseModel]) -> str | None:
    field = model.model_fields.get("kind")
    return None if field is None else str(field.default)


def _kinds(schema: object) -> str:
    *most, last = _members(schema)[0]
    return f"{', '.join(most)} or {last}"
