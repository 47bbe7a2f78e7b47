"""A Sphinx extension: writes the reference pages from the code's own declarations.

The command line comes from the Click commands, the families from `genmill family show --json`, the
settings from their pydantic model. Nothing under `reference/` is kept in Git, so nothing there can
be out of date. A file is written only when its text has changed, because Sphinx goes by its time.
"""

import importlib
import inspect
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.testing import CliRunner

import db.errors
from scheduler.cli import SECTIONS, cli
from scheduler.output import schema
from worker.families import find_family
from worker.settings import Settings

if TYPE_CHECKING:
    from sphinx.application import Sphinx

Pages = dict[str, str]  # path under reference/ -> Markdown


def setup(app: "Sphinx") -> dict[str, bool]:
    """Write the pages before Sphinx looks for sources."""
    app.connect("builder-inited", lambda app: write(Path(app.srcdir) / "reference"))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def write(folder: Path) -> None:
    """Bring `folder` up to date; remove pages of what no longer exists."""
    pages = {**command_pages(), **family_pages(), "_settings.md": settings_table()}
    pages["_errors.md"] = errors_text()
    pages["_json.md"] = json_text()
    for old in folder.rglob("*.md"):
        if old.relative_to(folder).as_posix() not in pages:
            old.unlink()
    for name, text in pages.items():
        path = folder / name
        if not path.is_file() or path.read_text("utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")


def command_pages() -> Pages:
    """One page for each command below `genmill`, and a table of them."""
    root = click.Context(cli, info_name="genmill")
    pages = {}
    index = []
    for heading, entries in SECTIONS.items():
        rows = []
        for name, entry in entries.items():
            command = cli.get_command(root, name)
            assert command is not None  # noqa: S101 - it is listed
            pages[f"commands/{name}.md"] = "\n".join(_command(command, root, name, level=1))
            rows.append((f"[`genmill {name}`](reference/commands/{name}.md)", entry.short_help))
        index += [f"**{heading}**\n", table(("command", "does"), rows), ""]
    pages["_commands.md"] = "\n".join(index)
    return pages


def _command(
    command: click.Command, parent: click.Context, name: str, *, level: int
) -> Iterator[str]:
    """A command's heading, help, usage, arguments and options; then its own commands."""
    context = click.Context(command, info_name=name, parent=parent, help_option_names=[])
    yield f"{'#' * level} `{context.command_path}`\n"
    summary, *examples = _paragraphs(command)
    yield summary
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    yield f"```text\n{usage}\n```\n"
    yield from examples
    records = [each.get_help_record(context) for each in command.get_params(context)]
    if rows := [_option(names, text) for names, text in filter(None, records) if text]:
        yield table(("option", "meaning"), rows) + "\n"
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            assert found is not None  # noqa: S101 - it is listed
            yield from _command(found, context, child, level=level + 1)


def _option(names: str, text: str) -> tuple[str, str]:
    """An option's row in the table. Many choices stand with its meaning, as its bounds do."""
    meaning = _prose(re.sub(r"\[(\d+)<=x<=(\d+)\]", r"From \1 to \2.", text))
    choices = re.search(r" \[(\w+(?:\|\w+){3,})\]$", names)
    if choices:
        names = names.removesuffix(choices[0])
        meaning += f"One of {_either(choices[1].split('|'))}."
    return f"`{names}`", meaning


def _either(choices: Sequence[str]) -> str:
    *most, last = (f"`{each}`" for each in choices)
    return f"{', '.join(most)} or {last}"


def _paragraphs(command: click.Command) -> list[str]:
    """A command's help as Markdown; a paragraph that Click does not wrap is an example."""
    text = inspect.cleandoc(command.help or "").partition("\f")[0]
    parts = [part.strip("\n") for part in text.split("\n\n")]
    prose = [_prose(part) for part in parts if not part.startswith("\b")]
    examples = [part.removeprefix("\b\n") for part in parts if part.startswith("\b")]
    fenced = [
        f"```{'console' if 'genmill ' in each else 'text'}\n{each}\n```\n" for each in examples
    ]
    return ["\n".join(prose), *fenced]


def _prose(text: str) -> str:
    """Running text, with options and what Markdown would take for markup written as code."""
    markup = r"`[^`]*`|\{.*?\}|--[a-z][a-z-]*|[\w./-]*[_*<](?:[\w./*<>-]*[\w*>])?"

    def as_code(found: re.Match[str]) -> str:
        return found[0] if found[0].startswith("`") else f"`{found[0]}`"

    return re.sub(markup, as_code, " ".join(text.split())) + "\n"


def family_pages() -> Pages:
    """One page for each family, and a table of them."""
    documents = [_shown("family", "show", each["name"]) for each in _shown("family", "list")]
    rows = [
        (
            f"[`{each['name']}`](reference/families/{each['name']}.md)",
            each["title"],
            each["media"],
            "yes" if each["labels"] else "",
            "yes" if each["prompts"] else "",
            "yes" if each["images"] else "",
            f"{each['default_seconds']:g} s",
        )
        for each in documents
    ]
    heads = ("family", "makes", "medium", "labels", "prompts", "from images", "default budget")
    pages = {f"families/{each['name']}.md": "\n".join(_family(each)) for each in documents}
    return pages | {"_families.md": table(heads, rows)}


def _family(document: dict[str, Any]) -> Iterator[str]:
    name = document["name"]
    title = document["title"]
    yield f"# `{name}`\n\n**{title[:1].upper()}{title[1:]}.**\n\n{_introduction(name)}\n"
    yield f"```console\n{_example(document)}\n```\n"
    for heading, key, intro in (
        ("Training parameters", "params", "Set with `--set NAME=VALUE` on `train` and `finetune`."),
        ("Sampling settings", "sampling", "Set with `--set NAME=VALUE` on `generate`."),
    ):
        yield f"## {heading}\n\n{intro}\n"
        rows = [
            (f"`{p['name']}`", f"`{json.dumps(p['default'])}`", p["range"], _prose(p["meaning"]))
            for p in document[key]
        ]
        yield table(("name", "default", "range", "meaning"), rows) + "\n"
    yield "## Papers\n"
    yield "\n".join(f"- {_linked(paper)}" for paper in document["papers"]) + "\n"


def _introduction(name: str) -> str:
    """What the family's package says of itself."""
    text = inspect.cleandoc(importlib.import_module(f"worker.families.{name}").__doc__ or "")
    text = text.removeprefix(f"`{name}`: ")
    return text[:1].upper() + text[1:]


def _example(document: dict[str, Any]) -> str:
    """Commands that train the family and generate with it."""
    name = document["name"]
    train = [f"genmill enqueue train {name} --dataset data --name mine --wait"]
    if not find_family(name).trains:
        train = [
            "genmill model import ./folder --name mine",
            "genmill enqueue finetune mine --dataset data --wait",
        ]
    prompt = " --prompt TEXT" if document["prompts"] else ""
    return "\n".join([*train, f"genmill enqueue generate mine --count 100{prompt} --wait"])


def settings_table() -> str:
    """Every `GENMILL_*` variable."""
    properties = Settings.model_json_schema()["properties"]
    rows = []
    for name, field in Settings.model_fields.items():
        default = field.get_default()  # a factory's depends on the machine
        shown = "" if default in (None, "") or field.default_factory else f"`{default}`"
        if name.endswith("_bytes"):
            shown += f" ({default / 2**30:g}\N{NO-BREAK SPACE}GiB)"
        choices = properties[name].get("enum")
        meaning = properties[name].get("description", "") or (_either(choices) if choices else "")
        rows.append((f"`GENMILL_{name.upper()}`", shown, meaning))
    return table(("variable", "default", "meaning"), rows)


def errors_text() -> str:
    """The tree of errors, as its module states it, as nested lists."""
    text = inspect.cleandoc(db.errors.__doc__ or "").partition("\n\n")[2]
    tree, _, rest = text.partition("\n\n")
    lines = []
    for line in tree.splitlines():
        found = re.fullmatch(r"([|` -]*)(\w+) +(.+)", line)
        assert found, line  # noqa: S101 - the docstring draws a tree
        depth = (len(found[1]) - 4) // 4
        lines.append(f"{'  ' * depth}- `{found[2]}`: {found[3]}")
    return "\n".join([*lines, "", rest, ""])


def json_text() -> str:
    """What each command prints with `--json`, and the fields of every document."""
    outputs = {
        command: " or ".join(_output(each) for each in several)
        for command, several in schema.outputs().items()
    }
    rows = [(f"`genmill {command}`", text) for command, text in outputs.items()]
    parts = ["## Commands\n", table(("command", "prints"), rows), "\n## Documents\n"]
    for name in schema.documents():
        fields = [
            (f"`{field}`", each.type, each.meaning + (" (may be absent)" if each.optional else ""))
            for field, each in schema.own_fields(name).items()
        ]
        base = schema.extended(name)
        intro = f"The fields of *{base}*, and:\n" if base else ""
        parts += [f"### {name[:1].upper()}{name[1:]}\n", intro]
        parts += [table(("field", "type", "meaning"), fields), ""]
    return "\n".join(parts)


def _output(output: schema.Output) -> str:
    forms = {"one": "", "list": "a list of ", "lines": "lines, each "}
    return f"{forms[output.form]}*{output.document}*"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(_cell(each) for each in line)} |" for line in lines)


def _cell(text: str) -> str:
    return re.sub(r"[ \n]+", " ", text).strip().replace("|", r"\|")


def _linked(paper: str) -> str:
    """A reference whose arXiv number leads to the paper."""
    linked = re.sub(r"arXiv:(\d{4}\.\d{4,5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", paper)
    return re.sub(r"(?<!\()(https://[^\s)]+)(?![^\[]*\])$", r"<\1>", linked)


def _shown(*words: str) -> Any:
    """What a command prints with `--json`."""
    done = CliRunner().invoke(cli, [*words, "--json"], catch_exceptions=False)
    return json.loads(done.stdout)
