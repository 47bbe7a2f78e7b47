"""`genmill dataset`: training data."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scheduler.cli import removal
from scheduler.cli.dataset_options import about_options, read_about, recipe_options
from scheduler.cli.dataset_report import (
    BALANCE,
    STEPS,
    balance_rows,
    print_added,
    stage_progress,
    step_rows,
)
from scheduler.cli.options import as_json, listed, shown
from scheduler.cli.private import shared_as_usual
from scheduler.cli.record import open_record
from scheduler.submission.path_arguments import PathArgument

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from scheduler.removal.withdrawal import Withdrawn

DESCENT_COLUMNS = ("version", "parent", "dataset", "generate_jobs", "samples")
COLUMNS = ("name", "version", "kind", "items", "labels", "size", "rejected", "created_at")
PUBLISHED = ("reference", "target", "items")
AFFECTED = ("schedule", "uses", "paused")
SHOWN_ITEMS = 10


@click.group("dataset")
def dataset() -> None:
    """Add, update, compare and remove datasets. Versions never change: adding creates a new one."""


@dataset.command("add")
@click.argument("name")
@click.argument("path", type=PathArgument(path_type=Path))
@recipe_options
@about_options
@as_json
def add(name: str, path: Path, as_json: bool, **options: Any) -> None:
    """Add PATH as a new version; print NAME:VERSION.

    PATH is a folder, a zip or tar (also .gz, .bz2, .xz, .zst), or a file: IDX files, images, sounds
    (WAV, FLAC, Ogg, MP3, AIFF), MIDI files (stored as texts of notes), or .txt, .jsonl or .json.

    Sub-folders are labels; without sub-folders, a sound's label is the part of its name before the
    first underscore (7_anna_03.wav). Folders or files called train, validation (val, dev) and test
    are splits. Captions and labels also come from a metadata.jsonl, .csv or .parquet, from a CSV of
    file names, from COCO's captions, or from a text file beside each picture. What was read is
    printed.

    \b
    genmill dataset add mnist ./mnist
    genmill dataset add shakespeare tinyshakespeare.txt --split 90,10,0
    genmill dataset add flowers flowers.zip --size 64 --mode RGB
    genmill dataset add digits spoken.zip --kind audio
    genmill dataset add letters mails.jsonl --mask-personal --licence CC-BY-4.0
    """
    from scheduler.datasets.add import add_dataset
    from worker.cleaning.recipe import Recipe

    about = read_about(options)
    with open_record() as services, stage_progress() as progress:
        added = add_dataset(services, name, path, Recipe(**options), about, progress=progress)
    print_added(added, as_json=as_json)


@dataset.command("update")
@click.argument("name", metavar="NAME[:VERSION]")
@click.argument("path", type=PathArgument(path_type=Path))
@about_options
@as_json
def update(name: str, path: Path, as_json: bool, **options: Any) -> None:
    """Add PATH to a version's items as a new version; print NAME:VERSION.

    New files are treated as the version's own were, by the same options. Its items stay and keep
    their splits; new ones that equal one of them are left out. New labels come after the known
    ones. Licence, source, tags and augmentations are kept unless new ones are given.

    \b
    genmill dataset update mnist ./more-digits
    """
    from scheduler.datasets.update import update_dataset

    about = read_about(options)
    with open_record() as services, stage_progress() as progress:
        added = update_dataset(services, name, path, about, progress=progress)
    print_added(added, as_json=as_json)


@dataset.command("list")
@listed
def list_datasets(as_json: bool, quiet: bool) -> None:
    """List the newest version of every dataset.

    \b
    genmill dataset list
    """
    from db import datasets
    from db.readable import read_each, refuse_unreadable
    from db.tables import Dataset
    from scheduler.output.documents import dataset_document
    from scheduler.output.render import print_list, to_size

    with open_record() as services, services.database.read() as session:
        found, bad = read_each(
            session,
            datasets.select_all(),
            lambda rows: [
                dataset_document(each, datasets.versions(session, each)[-1]) for (each,) in rows
            ],
            called=Dataset.name,
        )
    told = (
        each
        | {
            "items": sum(each.get("counts", {}).values()),
            "labels": len(each.get("labels", ())) or None,
            "size": to_size(each.get("size_bytes", 0)),
        }
        for each in found
    )
    print_list(found, COLUMNS, as_json=as_json, quiet=quiet, rows=told)
    refuse_unreadable("dataset", bad)


@dataset.command("show")
@click.argument("name", metavar="NAME[:VERSION]")
@click.option(
    "--sheet",
    type=PathArgument(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Draw a sheet of its images or sounds (.png), or write its first texts (.txt).",
)
@click.option("--used-by", is_flag=True, help="Show the models and jobs that use this version.")
@shown
def show(name: str, sheet: Path | None, used_by: bool, as_json: bool) -> None:
    """Show a version: splits, class balance, shape, and what each step of adding it did.

    \b
    genmill dataset show mnist:1 --used-by
    genmill dataset show mnist --sheet mnist.png
    """
    from db import datasets
    from scheduler.output.documents import dataset_document, used_by_document
    from scheduler.output.render import print_fields, print_json, print_table

    with open_record() as services:
        with services.database.read() as session:
            found, version = datasets.resolve(session, name)
            numbers = [each.number for each in datasets.versions(session, found)]
            document = dataset_document(found, version) | {"versions": numbers}
            if used_by:
                document["used_by"] = used_by_document(session, [version])
        if sheet is not None:
            from scheduler.datasets.content import content_of
            from scheduler.datasets.sheet import draw_sheet

            content = content_of(services, version)
            with shared_as_usual():
                draw_sheet(content, sheet)
    if as_json:
        print_json(document)
        return
    steps, balance = document.pop("steps", []), document.pop("balance", [])
    uses = document.pop("used_by", None)
    print_fields(document)
    if balance:
        print_table(balance_rows(document["labels"], balance), BALANCE, heading="LABELS")
    if steps:
        print_table(step_rows(steps), STEPS, heading="STEPS")
    if uses is not None:
        print_table(uses["models"], DESCENT_COLUMNS, heading="MODELS")
        rows = [{"id": each} for each in uses["unfinished_jobs"]]
        print_table(rows, ("id",), heading="UNFINISHED JOBS")


@dataset.command("diff")
@click.argument("one", metavar="NAME[:VERSION]")
@click.argument("other", metavar="NAME[:VERSION]")
@shown
def diff(one: str, other: str, as_json: bool) -> None:
    """Compare two versions: items added, removed, moved between splits, labelled otherwise.

    Items are compared by digest. --json lists the first 1,000 of each kind.

    \b
    genmill dataset diff mnist:1 mnist:2
    """
    from db import datasets
    from db.errors import Refused
    from scheduler.datasets.content import content_of
    from scheduler.output.render import print_fields, print_json, print_table
    from worker.data.comparison import compare
    from worker.media import find_medium

    with open_record() as services:
        with services.database.read() as session:
            versions = [datasets.resolve(session, each)[1] for each in (one, other)]
        medium = find_medium(versions[0].kind)
        if versions[1].kind != medium.name:
            raise Refused(
                f"{one} is {medium.name} data, {other} is {versions[1].kind}",
                remedy="compare versions of one kind",
            )
        contents = [content_of(services, each) for each in versions]
        found = compare(contents[0], contents[1], medium.contents)
    if as_json:
        print_json({"counts": found.counts, **found.items})
        return
    print_fields(found.counts)
    for kind, rows in found.items.items():
        if rows:
            print_table(rows[:SHOWN_ITEMS], tuple(rows[0]), heading=kind.upper())


@dataset.command("withdraw")
@click.argument("name", metavar="NAME")
@click.argument("items", nargs=-1, required=True, metavar="ITEM...")
@click.option("--reason", metavar="TEXT", help="Why, for the record.")
@click.option("--take-down", is_flag=True, help="Take down what was published of it.")
@click.option("--dry-run", is_flag=True, help="Only show what would follow.")
@as_json
def withdraw(
    name: str,
    items: tuple[str, ...],
    reason: str | None,
    take_down: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Bar items from every dataset, and name what was made from them.

    An ITEM is a digest, as `dataset diff --json` lists it, or the file itself. Versions that hold
    one are hidden from new jobs, and no `dataset add` or `update` takes one again. The models that
    were trained on such a version, or tuned from one that was, are listed: retrain them. Schedules
    that would train on either are paused; others that use either are listed. So is what is
    published of these models and their samples: --take-down enqueues jobs that take it down.

    \b
    genmill dataset withdraw faces 3f2a9c0d5b7e8812 ./me.png --reason "asked to"
    """
    from db import published
    from scheduler.output.render import print_json
    from scheduler.removal import withdrawal
    from scheduler.submission.take_downs import take_all_down
    from worker.identity import who

    with open_record() as services:
        found = withdrawal.withdraw(
            services, name, items, who=who(), reason=reason, dry_run=dry_run
        )
        with services.database.read() as session:
            document = _withdrawn(session, found)
            shown = published.made_from(session, found.versions)
        jobs = take_all_down(services, shown) if take_down and not dry_run else []
    document["published"] = [each.row for each in shown]
    document |= {"taken_down_by": jobs, "dry_run": dry_run}
    if as_json:
        print_json(document)
        return
    _print_withdrawn(document)
    for affected in found.schedules if not dry_run else ():
        if affected.trains:
            told = f"{affected.schedule} is paused: it would train on {', '.join(affected.uses)}"
            click.echo(f"{told}; remove it, and add it again with other data", err=True)
    for still in [] if take_down else shown:
        click.echo(f"take it down: {still.remedy}", err=True)
    for job_id in jobs:
        click.echo(f"taken down by job {job_id}", err=True)


def _withdrawn(session: "Session", found: "Withdrawn") -> dict[str, Any]:
    """What was barred, and the models and schedules that use it, as the document begins."""
    from db.lineage import dataset_reference
    from scheduler.output.documents import used_by_document

    return {
        "digests": found.digests,
        "versions": [dataset_reference(session, each) for each in found.versions],
        "unread": [dataset_reference(session, each) for each in found.unread],
        "retrain": used_by_document(session, found.versions)["models"],
        "schedules": [each.row for each in found.schedules],
    }


def _print_withdrawn(document: dict[str, Any]) -> None:
    from scheduler.output.render import print_table

    for each in document["unread"]:
        click.echo(f"{each} was removed, and its content is gone: it was not looked at", err=True)
    print_table([{"version": each} for each in document["versions"]], ("version",))
    print_table(document["retrain"], DESCENT_COLUMNS, heading="TO RETRAIN")
    print_table(document["schedules"], AFFECTED, heading="SCHEDULES")
    print_table(document["published"], PUBLISHED, heading="PUBLISHED")


dataset.add_command(removal.remove_dataset)
