"""Prompt templates: a text with fields, filled from the lines of a prompts file.

A template is `prompts/NAME.txt`, with fields as in `{text}`, and `prompts/NAME.jsonl` holds lines
that fill it. A new one is two files more.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Any

from db.errors import BadInput, NotFound
from scheduler.submission.json_lines import read_lines

FOLDER = Path(__file__).with_name("prompts")


@dataclass(frozen=True)
class Template:
    """A prompt with fields; `example` is the text of a prompts file for it."""

    name: str
    text: str
    example: str

    @property
    def fields(self) -> list[str]:
        """What a line must say, in the order of the text."""
        named = (field for _, field, _, _ in Formatter().parse(self.text) if field)
        return list(dict.fromkeys(named))

    def fill(self, values: dict[str, Any]) -> str:
        """The prompt that one line makes; raises `BadInput` naming the field that is wrong."""
        for field in self.fields:
            if field not in values:
                raise BadInput(f"no {field!r}; template {self.name!r} needs {self._needs()}")
            if isinstance(values[field], bool) or not isinstance(values[field], str | int | float):
                raise BadInput(f"{field}: expected a text (got {str(values[field])[:40]!r})")
        if extra := values.keys() - {*self.fields, "custom_id"}:
            raise BadInput(f"unknown field {min(extra)!r}; known: {self._needs()}, custom_id")
        return self.text.format_map(values)

    def _needs(self) -> str:
        return ", ".join(self.fields)


def templates() -> list[Template]:
    """Every template, by name."""
    return [find_template(path.stem) for path in sorted(FOLDER.glob("*.txt"))]


def find_template(name: str) -> Template:
    """The template of this name; `NotFound` with the nearest spelling where there is none."""
    known = [path.stem for path in FOLDER.glob("*.txt")]
    if name not in known:
        raise NotFound.unknown("template", name, known)
    text, example = (
        (FOLDER / f"{name}{suffix}").read_text("utf-8") for suffix in (".txt", ".jsonl")
    )
    return Template(name, text.rstrip("\n"), example)


def read_filled(path: str, template: Template) -> list[dict[str, Any]]:
    """The prompts that a file's lines make: a line is an object of the fields and `custom_id`."""
    prompts = []
    for number, line in enumerate(read_lines(path), 1):
        if line.strip():
            try:
                prompts.append(_read(line, template))
            except (ValueError, RecursionError, BadInput) as error:
                raise BadInput(f"{path}: line {number}: {error}") from None
    return prompts


def _read(line: str, template: Template) -> dict[str, Any]:
    values = json.loads(line)
    if not isinstance(values, dict):
        raise BadInput(f"expected a JSON object (got {line.strip()[:40]!r})")
    named = {"custom_id": values["custom_id"]} if "custom_id" in values else {}
    return {"prompt": template.fill(values), **named}
