"""`genmill template`: prompt templates, for `enqueue generate --template`."""

import click

from scheduler.cli.options import listed, shown


@click.group("template")
def template() -> None:
    """Prompt templates for summaries, translations, dialogue, articles and adverts."""


@template.command("list")
@listed
def list_templates(as_json: bool, quiet: bool) -> None:
    """List the templates and the fields that each needs.

    \b
    genmill template list
    """
    from scheduler.output.render import print_list
    from scheduler.submission.prompts import templates

    found = [{"name": each.name, "fields": each.fields} for each in templates()]
    print_list(found, ("name", "fields"), as_json=as_json, quiet=quiet, prose=True)


@template.command("show")
@click.argument("name")
@shown
def show(name: str, as_json: bool) -> None:
    """Show a template and an example of a prompts file for it.

    \b
    genmill template show summary
    genmill enqueue generate writer --template summary --prompts texts.jsonl
    """
    from scheduler.output.render import print_json, print_text
    from scheduler.submission.prompts import find_template

    found = find_template(name)
    if as_json:
        print_json({"name": found.name, "fields": found.fields, "text": found.text})
    else:
        print_text(f"{found.text}\n\nEXAMPLE OF A PROMPTS FILE\n{found.example}")
