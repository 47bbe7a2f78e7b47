"""What the documents of `--json` hold: the name, type and meaning of every field of every command.

They are stated in `schema.toml`. `--json FIELDS` takes these names, and the reference page is
written from them; a test compares what commands print.
"""

import tomllib
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

_FILE = Path(__file__).with_name("schema.toml")
_EXTENDS = "extends"


class Field(NamedTuple):
    """A field of a document. An `optional` one is left out where it says nothing."""

    type: str
    meaning: str
    optional: bool = False


class Output(NamedTuple):
    """`one` document, a `list` of them, or `lines` with one each."""

    form: str
    document: str


def outputs() -> dict[str, list[Output]]:
    """What each command prints, one or another, by the command's words without `genmill`."""
    return {
        command: [_output(each) for each in text.split(" or ")]
        for command, text in _read()["commands"].items()
    }


def documents() -> list[str]:
    """The names of all documents."""
    return list(_read()["documents"])


def document(name: str) -> dict[str, Field]:
    """All fields of a document, those of the document that it extends first."""
    base = extended(name)
    return (document(base) if base else {}) | own_fields(name)


def extended(name: str) -> str | None:
    """The document whose fields this one has too."""
    base: str | None = _read()["documents"][name].get(_EXTENDS)
    return base


def own_fields(name: str) -> dict[str, Field]:
    """The fields that a document has beside those of the one that it extends."""
    found = {}
    for field, text in _read()["documents"][name].items():
        kind, _, meaning = text.partition(": ")
        if field != _EXTENDS:
            found[field.removesuffix("?")] = Field(kind, meaning, optional=field.endswith("?"))
    return found


def fields_of(command: str) -> list[str]:
    """The fields that a command can be asked for; none if it is not known what it prints."""
    named = [each.document for each in outputs().get(command, ())]
    return list(dict.fromkeys(field for name in named for field in document(name)))


def _output(text: str) -> Output:
    form, of, name = text.partition(" of ")
    return Output(form, name) if of else Output("one", text)


@cache
def _read() -> dict[str, Any]:
    return tomllib.loads(_FILE.read_text("utf-8"))
