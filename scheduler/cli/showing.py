"""One thing in full, for `show` commands: fields first, then tables under headings."""

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from db.tables import DatasetVersion, Job

Document = dict[str, Any]


def job_pages(session: "Session", job: "Job") -> Document:
    """A job with its shards, its transitions and the last point of each of its curves."""
    from db import jobs
    from scheduler.output.documents import job_document, shard_document

    latest = {point.name: point for point in jobs.points(session, job.id)}
    return job_document(job) | {
        "shards": [shard_document(shard) for shard in jobs.shards_of(session, job.id)],
        "transitions": [
            {"at": step.at, "old": step.old, "new": step.new, "reason": step.reason}
            for step in jobs.transitions(session, job.id)
            if step.shard_id is None
        ],
        "metrics": {name: point.value for name, point in latest.items()},
    }


def print_job(pages: Document, *, as_json: bool) -> None:
    """Write what `job_pages` gathered."""
    from scheduler.cli.watching import describe_progress
    from scheduler.output.render import print_fields, print_json, print_table

    if as_json:
        print_json(pages)
        return
    tables = {name: pages.pop(name) for name in ("shards", "transitions")}
    pages["progress"] = describe_progress(pages["progress"])
    print_fields(pages)
    _heading("shards")
    print_table(tables["shards"], ("index", "start", "stop", "status", "failures", "last_error"))
    _heading("history")
    print_table(tables["transitions"], ("at", "old", "new", "reason"))


def _heading(text: str) -> None:
    click.echo(f"\n{text.upper()}")


def model_pages(session: "Session", reference: str) -> Document:
    """A model version with its parent, its dataset, its aliases and the model's other versions."""
    from db import datasets, models
    from scheduler.output.documents import model_document

    model, version = models.resolve(session, reference)
    versions = models.versions(session, model)
    parent = models.version(session, version.parent_id) if version.parent_id else None
    parent_model = session.get(type(model), parent.model_id) if parent else None
    learnt = version.dataset_version_id
    source = datasets.version(session, learnt) if learnt else None
    return model_document(model, version) | {
        "parent": f"{parent_model.name}:{parent.number}" if parent and parent_model else None,
        "dataset": _dataset_reference(session, source) if source else None,
        "aliases": models.aliases(session, model),
        "versions": [
            {"version": each.number, "metrics": each.metrics, "created_at": each.created_at}
            for each in versions
        ],
    }


def _dataset_reference(session: "Session", version: "DatasetVersion") -> str:
    from db.tables import Dataset

    dataset = session.get(Dataset, version.dataset_id)
    return f"{dataset.name}:{version.number}" if dataset else version.id


def print_model(pages: Document, *, as_json: bool) -> None:
    """Write what `model_pages` gathered."""
    from scheduler.output.render import print_fields, print_json, print_table, to_size

    if as_json:
        print_json(pages)
        return
    files = [{"name": name} | file for name, file in pages.pop("files").items()]
    versions = pages.pop("versions")
    print_fields(pages)
    _heading("files")
    print_table(
        [each | {"size": to_size(each["size"])} for each in files], ("name", "size", "sha256")
    )
    _heading("versions")
    print_table(versions, ("version", "metrics", "created_at"))
