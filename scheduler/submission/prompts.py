"""The prompts of a generate job: the lines of a file, as they are or filled into a template.

A template is two files: `templates/NAME.txt`, with fields such as `{text}`, and
`templates/NAME.jsonl`, lines that fill it.
"""

from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Any

from db.errors import BadInput, NotFound
from scheduler.submission.json_lines import parse_json, parse_object, read_lines
from worker.complaints import as_given
from worker.conversations import Conversation
from worker.specs import MAX_PROMPTS

FOLDER = Path(__file__).with_name("templates")
_KEYS = ("prompt", "messages", "conversations")  # of what a model is to read


@dataclass(frozen=True)
class Template:
    """A prompt with fields; `example` is the content of a prompts file for it."""

    name: str
    text: str
    example: str

    @property
    def fields(self) -> list[str]:
        """The fields that a line must have, in the text's order."""
        named = (field for _, field, _, _ in Formatter().parse(self.text) if field)
        return list(dict.fromkeys(named))

    def fill(self, values: dict[str, Any]) -> str:
        """The prompt that one line makes. Raises `BadInput` naming the field that is wrong."""
        for field in self.fields:
            if field not in values:
                raise BadInput(
                    f"no {field!r}",
                    remedy=f"template {self.name!r} needs {', '.join(self.fields)}",
                )
            if isinstance(values[field], bool) or not isinstance(values[field], str | int | float):
                raise BadInput(f"{field}: expected a text (got {as_given(values[field])})")
        known = {*self.fields, "custom_id"}
        if extra := values.keys() - known:
            raise BadInput.unknown("field", min(extra), known, of=f"template {self.name!r}")
        return self.text.format_map(values)


def templates() -> list[Template]:
    """Every template, by name."""
    return [find_template(path.stem) for path in sorted(FOLDER.glob("*.txt"))]


def find_template(name: str) -> Template:
    """The template called `name`. Raises `NotFound` with the nearest spelling."""
    known = [path.stem for path in FOLDER.glob("*.txt")]
    if name not in known:
        raise NotFound.unknown("template", name, known)
    text, example = (
        (FOLDER / f"{name}{suffix}").read_text("utf-8") for suffix in (".txt", ".jsonl")
    )
    return Template(name, text.rstrip("\n"), example)


def read_prompts(path: str, template: Template | None = None) -> list[dict[str, Any]]:
    """The prompts of a file, as `{"prompt", "custom_id"?}`. Raises `BadInput` naming the line.

    A line is such an object, just a JSON string, or a conversation: `messages`, as a key or as the
    prompt. With a `template`, it is an object of the template's fields and `custom_id`.
    """
    prompts = []
    for number, line in enumerate(read_lines(path), 1):
        if line.strip():
            try:
                prompts.append(_parse_line(line, template))
            except BadInput as error:
                raise BadInput(
                    f"{path}: line {number}: {error.message}", remedy=error.remedy
                ) from None
    if len(prompts) > MAX_PROMPTS:
        raise BadInput(f"{path}: {len(prompts):,} prompts: at most {MAX_PROMPTS:,} are allowed")
    return prompts


def _parse_line(line: str, template: Template | None) -> dict[str, Any]:
    if template is not None:
        values = parse_object(line)
        filled = {"prompt": template.fill(values)}
        return filled | ({"custom_id": values["custom_id"]} if "custom_id" in values else {})
    return _parse_prompt(parse_json(line))


def _parse_prompt(value: Any) -> dict[str, Any]:
    given = {"prompt": value} if isinstance(value, str | list) else value
    key = next((key for key in _KEYS if key in given), "") if isinstance(given, dict) else ""
    prompt = given.pop(key) if key else None
    if isinstance(prompt, list) or key in _KEYS[1:]:
        prompt = Conversation.parse(prompt)
    if not isinstance(prompt, str | Conversation):
        raise BadInput(
            'expected {"prompt": "text"} or {"messages": [{"role": ..., "content": ...}]} '
            f"(got {as_given(value)})"
        )
    if extra := given.keys() - {"custom_id"}:
        raise BadInput.unknown("key", min(extra), ("custom_id", *_KEYS[:2]), of="the line")
    return {"prompt": prompt, **given}
