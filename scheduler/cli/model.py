"""`genmill model`: trained models, their versions, and handing them on."""

from pathlib import Path

import click

from scheduler.cli.options import Place, as_json
from scheduler.cli.record import open_record

COLUMNS = ("name", "version", "family", "aliases", "loss", "created_at")


@click.group("model")
def model() -> None:
    """List, show, export and import models. MODEL is name, name@alias or name:3."""


@model.command("list")
@as_json
def list_models(as_json: bool) -> None:
    """List every model with the version that its bare name means.

    \b
    genmill model list
    """
    from db import models
    from scheduler.output.documents import model_document
    from scheduler.output.render import print_json, print_table

    with open_record() as services, services.database.read() as session:
        found = [
            model_document(*models.resolve(session, each.name))
            | {"aliases": models.aliases(session, each)}
            for each in models.listing(session)
        ]
    if as_json:
        print_json(found)
    else:
        print_table([each | {"loss": each["metrics"].get("loss")} for each in found], COLUMNS)


@model.command("show")
@click.argument("reference", metavar="MODEL")
@as_json
def show(reference: str, as_json: bool) -> None:
    """Show a version: where it comes from, its parameters, metrics and files.

    \b
    genmill model show digits:2
    """
    from scheduler.cli.showing import model_pages, print_model

    with open_record() as services, services.database.read() as session:
        pages = model_pages(session, reference)
    print_model(pages, as_json=as_json)


@model.command("export")
@click.argument("reference", metavar="MODEL")
@click.argument("folder", type=Place(file_okay=False, path_type=Path), metavar="DIR")
@click.option("--merge", is_flag=True, help="Work an adapter into its base's weights.")
@as_json
def export(reference: str, folder: Path, merge: bool, as_json: bool) -> None:
    """Write a version into a folder for others.

    The Hugging Face layout: config.json, model.safetensors and a README.md card; SHA256SUMS shows
    damage. An adapter comes with its base; with --merge, the two become one plain model of
    transformers.

    \b
    genmill model export digits@champion ./digits-hf
    genmill model export summaries:2 ./summaries-hf --merge
    """
    from scheduler.models.export_model import export_model
    from scheduler.output.render import print_json

    with open_record() as services:
        written = export_model(services, reference, folder, merge=merge)
    if as_json:
        print_json({"folder": str(folder), "files": [path.name for path in written]})
    else:
        click.echo(str(folder))


@model.command("import")
@click.argument("folder", type=Place(file_okay=False, path_type=Path), metavar="DIR")
@click.option("--name", required=True, metavar="N", help="The model's name.")
@as_json
def import_(folder: Path, name: str, as_json: bool) -> None:
    """Take in an exported folder as a new version, or a causal language model of transformers.

    Weights are safetensors or nothing; a pickle is never opened, and no code in the folder is run.

    \b
    genmill model import ./digits-hf --name digits
    genmill model import ./SmolLM2-135M-Instruct --name writer
    """
    from scheduler.models.import_model import import_model
    from scheduler.output.documents import model_document
    from scheduler.output.render import print_json

    with open_record() as services:
        found, version = import_model(services, folder, name)
    if as_json:
        print_json(model_document(found, version))
    else:
        click.echo(f"{found.name}:{version.number}")
