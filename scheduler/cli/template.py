"""`genmill template`: prompt templates, for `enqueue generate --template`."""

import click

from scheduler.cli.options import as_json


@click.group("template")
def template() -> None:
    """Prompt templates for summaries, translations, dialogue, articles and adverts."""


@template.command("list")
@as_json
def list_templates(as_json: bool) -> None:
    """List the templates and the fields that each needs.

    \b
    genmill template list
    """
    from scheduler.output.render import print_json, print_table
    from scheduler.submission.prompts import templates

    found = [{"name": each.name, "fields": each.fields} for each in templates()]
    if as_json:
        print_json(found)
    else:
        rows = [{**each, "fields": ", ".join(each["fields"])} for each in found]
        print_table(rows, ("name", "fields"))


@template.command("show")
@click.argument("name")
@as_json
def show(name: str, as_json: bool) -> None:
    """Show a template and an example of a prompts file for it.

    \b
    genmill template show summary
    genmill enqueue generate writer --template summary --prompts texts.jsonl
    """
    from scheduler.output.render import print_json
    from scheduler.submission.prompts import find_template

    found = find_template(name)
    if as_json:
        print_json({"name": found.name, "fields": found.fields, "text": found.text})
    else:
        click.echo(f"{found.text}\n\nEXAMPLE OF A PROMPTS FILE\n{found.example}", nl=False)
