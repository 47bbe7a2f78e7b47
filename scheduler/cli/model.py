"""`genmill model`: trained models and their versions, export and import."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from scheduler.cli import promotion, removal
from scheduler.cli.model_marks import marks
from scheduler.cli.options import as_json, listed, shown
from scheduler.cli.private import shared_as_usual
from scheduler.cli.record import open_record
from scheduler.submission.path_arguments import PathArgument

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from scheduler.output.documents import Document
    from worker.networks.inspection import Inspection

DESCENT_COLUMNS = ("version", "parent", "dataset", "generate_jobs", "samples")
COLUMNS = ("name", "version", "means", "family", "aliases", "loss", "created_at")


@click.group("model")
def model() -> None:
    """Show, compare, promote, export and import models.

    MODEL is NAME, NAME@ALIAS or NAME:VERSION; a bare NAME means its champion where there is one,
    else its newest version.
    """


for command in (
    promotion.compare,
    promotion.alias,
    promotion.promote,
    promotion.rollback,
    promotion.history,
    removal.remove_model,
    marks,
):
    model.add_command(command)


@model.command("list")
@listed
def list_models(as_json: bool, quiet: bool) -> None:
    """List every model with the version that its bare name means: its champion, or its newest.

    \b
    genmill model list
    """
    from db import models
    from db.readable import read_each, refuse_unreadable
    from db.tables import Model
    from scheduler.output.documents import model_document
    from scheduler.output.render import print_list

    with open_record() as services, services.database.read() as session:
        found, bad = read_each(
            session,
            models.select_all(),
            lambda rows: [
                model_document(*models.resolve(session, each.name))
                | {"aliases": (aliases := models.aliases(session, each))}
                | {"means": models.CHAMPION if models.CHAMPION in aliases else "newest"}
                for (each,) in rows
            ],
            called=Model.name,
        )
    told = (each | {"loss": each["metrics"].get("loss")} for each in found)
    print_list(found, COLUMNS, as_json=as_json, quiet=quiet, rows=told)
    refuse_unreadable("model", bad)


@model.command("show")
@click.argument("reference", metavar="MODEL")
@click.option("--lineage", is_flag=True, help="Show what it was made from, and what from it.")
@shown
def show(reference: str, lineage: bool, as_json: bool) -> None:
    """Show a version: its origin, parameters, metrics, files and evaluations.

    \b
    genmill model show digits:2 --lineage
    """
    from scheduler.output.documents import lineage_document
    from scheduler.output.numbers import NUMBER_COLUMNS, number_rows, protocol_line, scalars
    from scheduler.output.render import print_fields, print_json, print_table, to_size

    with open_record() as services, services.database.read() as session:
        document = _document(session, reference)
        if lineage:
            document["lineage"] = lineage_document(session, reference)
    if as_json:
        print_json(document)
        return
    versions, evaluations = document.pop("versions"), document.pop("evaluations")
    tree = document.pop("lineage", None)
    files = [
        {"name": name, "size": to_size(file["size"]), "sha256": file["sha256"]}
        for name, file in document.pop("files").items()
    ]
    warnings = "; ".join(document["metrics"].get("warnings", ()))
    print_fields(document | {"metrics": scalars(document["metrics"]), "warnings": warnings})
    print_table(files, ("name", "size", "sha256"), heading="FILES")
    for each in versions:
        each["metrics"] = scalars(each["metrics"])
    print_table(versions, ("version", "metrics", "created_at"), heading="VERSIONS")
    for direction, found in (tree or {}).items():
        print_table(found, DESCENT_COLUMNS, heading=direction.upper())
    for evaluation in evaluations:
        heading = f"EVALUATION BY JOB {evaluation['job']}: {protocol_line(evaluation['protocol'])}"
        print_table(number_rows(evaluation["numbers"]), NUMBER_COLUMNS, heading=heading)


def _document(session: "Session", reference: str) -> "Document":
    """A version with its parent, its dataset, its aliases and the model's other versions."""
    from db import datasets, evaluations, models
    from db.tables import Dataset, Model
    from scheduler.output.documents import evaluation_document, model_document

    model, version = models.resolve(session, reference)
    parent = dataset = licence = None
    if version.parent_id:
        found = models.version(session, version.parent_id)
        parent = f"{session.get_one(Model, found.model_id).name}:{found.number}"
    if version.dataset_version_id:
        data = datasets.version(session, version.dataset_version_id)
        dataset = f"{session.get_one(Dataset, data.dataset_id).name}:{data.number}"
        licence = data.summary.get("licence")
    return model_document(model, version) | {
        "parent": parent,
        "dataset": dataset,
        "dataset_licence": licence,
        "aliases": models.aliases(session, model),
        "versions": [
            {"version": each.number, "metrics": each.metrics, "created_at": each.created_at}
            for each in models.versions(session, model)
        ],
        "evaluations": [
            evaluation_document(each) for each in evaluations.of_version(session, version.id)
        ],
    }


@model.command("export")
@click.argument("reference", metavar="MODEL")
@click.argument("folder", type=PathArgument(file_okay=False, path_type=Path), metavar="DIR")
@click.option("--merge", is_flag=True, help="Merge an adapter into the weights of its base model.")
@as_json
def export(reference: str, folder: Path, merge: bool, as_json: bool) -> None:
    """Export a version into a folder.

    The folder has the Hugging Face layout: config.json, model.safetensors and a model card,
    README.md; SHA256SUMS lets the reader verify it. An adapter is exported with its base model, or
    with --merge as one plain transformers model.

    \b
    genmill model export digits@champion ./digits-hf
    genmill model export summaries:2 ./summaries-hf --merge
    """
    from scheduler.models.export_model import export_model
    from scheduler.output.render import print_json

    with open_record() as services, shared_as_usual():
        written = export_model(services, reference, folder, merge=merge)
    if as_json:
        print_json({"folder": str(folder), "files": [path.name for path in written]})
    else:
        click.echo(str(folder))


@model.command("import")
@click.argument("folder", type=PathArgument(path_type=Path), metavar="DIR")
@click.option("--name", required=True, metavar="MODEL", help="Name of the model.")
@click.option(
    "--unwrap",
    is_flag=True,
    help="Take wrappers' names off the tensors: _orig_mod., module., base_model.model.",
)
@as_json
def import_(folder: Path, name: str, unwrap: bool, as_json: bool) -> None:
    """Import an exported folder, or a causal language model from transformers, as a new version.

    Weights must be safetensors: pickles are never opened, and no code in the folder is run. The
    model is loaded and tried before it is stored, which needs PyTorch and memory for its weights.

    \b
    genmill model import ./digits-hf --name digits
    genmill model import ./SmolLM2-135M-Instruct --name writer
    """
    from scheduler.models.import_model import import_model
    from scheduler.output.documents import model_document
    from scheduler.output.render import print_json

    with open_record() as services:
        found, version = import_model(services, folder, name, inspect=_inspect, unwrap=unwrap)
    if as_json:
        print_json(model_document(found, version))
    else:
        click.echo(f"{found.name}:{version.number}")
    for warning in version.metrics.get("warnings", ()):
        click.echo(f"warning: {warning}", err=True)


def _inspect(folder: Path) -> "Inspection":
    from worker.extras import needed_for

    elsewhere = "import it where a worker is installed, with the same database and store"
    with needed_for("trying the model", remedy=elsewhere):
        from worker.engine.inspection import inspect

        return inspect(folder)
