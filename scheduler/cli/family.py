"""`genmill family`: model families, with the meaning, default and range of every parameter."""

from typing import TYPE_CHECKING

import click

from scheduler.cli.options import listed, shown

if TYPE_CHECKING:
    from scheduler.output.documents import Document
    from worker.networks.family import Family
    from worker.specs import Params

FAMILIES = ("name", "media", "labels", "prompts", "images", "title")
COLUMNS = ("name", "default", "range", "meaning")


@click.group("family")
def family() -> None:
    """List the model families, and the parameters that --set takes for each."""


@family.command("list")
@listed
def list_families(as_json: bool, quiet: bool) -> None:
    """List the model families.

    \b
    genmill family list
    """
    from scheduler.output.render import print_list
    from worker.families import families

    found = [_document(each) for each in families().values()]
    print_list(found, FAMILIES, as_json=as_json, quiet=quiet, prose=True)


@family.command("show")
@click.argument("name")
@shown
def show(name: str, as_json: bool) -> None:
    """Show a family: its training parameters, its sampling settings and its papers.

    \b
    genmill family show gpt
    """
    from scheduler.output.render import print_fields, print_json, print_table, print_text
    from worker.families import find_family

    document = _document(find_family(name))
    if as_json:
        print_json(document)
        return
    training, sampling, papers = (document.pop(key) for key in ("params", "sampling", "papers"))
    print_fields(document)
    print_table(training, COLUMNS, heading="TRAINING (--set name=value)", prose=True)
    print_table(sampling, COLUMNS, heading="SAMPLING (--set name=value)", prose=True)
    print_text("\nPAPERS\n" + "\n".join(papers))


def _document(family: "Family") -> "Document":
    return {
        "name": family.name,
        "title": family.title,
        "media": family.media,
        "labels": family.takes_labels,
        "prompts": family.takes_prompts,
        "images": family.takes_images,
        "default_seconds": family.default_seconds,
        "params": _parameters(family.params),
        "sampling": _parameters(family.sampling),
        "papers": list(family.papers),
    }


def _parameters(schema: type["Params"]) -> "list[Document]":
    properties = schema.model_json_schema()["properties"]
    return [
        {
            "name": name,
            "default": schema.model_fields[name].get_default(call_default_factory=True),
            "range": _range(about),
            "meaning": about.get("description", ""),
        }
        for name, about in properties.items()
    ]


def _range(about: "Document") -> str:
    """The values that a parameter takes, in words, from its JSON schema."""
    if "anyOf" in about:
        return " or ".join(_range(each) for each in about["anyOf"])
    if "enum" in about or "const" in about:
        return " | ".join(map(str, about.get("enum", [about.get("const")])))
    kinds = {"integer": "whole number", "number": "number", "array": "list", "null": "nothing"}
    limits = [
        f"{sign} {about[key]:.15g}"
        for key, sign in (
            ("minimum", "from"),
            ("exclusiveMinimum", "above"),
            ("maximum", "to"),
            ("exclusiveMaximum", "below"),
        )
        if key in about
    ]
    kind = str(about.get("type", ""))
    return " ".join([kinds.get(kind, kind), *limits])
