"""`genmill db`: the schema of the database and what depends on it, and deleting what is old."""

from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from scheduler.cli.lazy import DeclaredChoice
from scheduler.cli.options import Duration, as_json, listed, shown, with_limit
from scheduler.cli.removal import agree

KINDS = DeclaredChoice("scheduler.dispatch.retention:KINDS")
REMOVED = ("at", "kind", "name", "size", "then", "who")

if TYPE_CHECKING:
    from scheduler.models.loadable import Shapes, Unloadable
    from worker.networks.version_folder import Config


@click.group("db")
def db() -> None:
    """Create, upgrade, check and prune the database."""


@db.command("upgrade")
def upgrade() -> None:
    """Create the tables, or upgrade them to this version; warn of models that would not load.

    \b
    GENMILL_DATABASE_URL=postgresql://user@host/genmill genmill db upgrade
    """
    from db import schema
    from db.errors import GenmillError
    from scheduler.models.loadable import look_at_versions
    from worker.services import open_services
    from worker.settings import read_settings

    schema.upgrade(read_settings().database)
    click.echo("the database is up to date", err=True)
    with suppress(GenmillError):  # the store may come later; `db check` tells
        services = open_services()
        try:
            wrong = look_at_versions(services).unloadable
        finally:
            services.close()
        for each in wrong:
            click.echo(f"warning: {_told(each)}", err=True)


@db.command("check")
@shown
def check(as_json: bool) -> None:
    """Check that this version can use what is there; exit with 1 if not.

    The schema must be the one it needs, and every model version must load. Settings and headers are
    read, no tensors; the newest 2,000 versions are looked at.

    \b
    genmill db check
    """
    from db import schema
    from db.errors import GenmillError
    from scheduler.models.loadable import look_at_versions
    from scheduler.output.render import print_json, print_table, to_count
    from worker.services import open_services

    services = open_services()
    try:
        schema.check(services.database)
        revision = schema.current(services.database)
        looked = look_at_versions(services, refuse_other_tensors)
    finally:
        services.close()
    wrong = [each._asdict() for each in looked.unloadable]
    if as_json:
        told = {"checked": looked.count, "not_checked": looked.left_out, "unloadable": wrong}
        print_json({"revision": revision, "ok": not wrong, "models": told})
    else:
        click.echo(f"schema {revision}: up to date")
        click.echo(f"models: {looked}")
        if wrong:
            print_table(wrong, ("version", "found", "remedy"), prose=True)
    if wrong:
        raise GenmillError(f"{len(wrong)} of {to_count(looked.count, 'version')} would not load")


def refuse_other_tensors(record: "Config", shapes: "Shapes") -> None:
    """Raise unless the network of a version's record has these tensors; needs PyTorch to know."""
    try:
        from worker.engine import fitting
    except ModuleNotFoundError:
        return
    fitting.refuse_other_tensors(record, shapes)


def _told(each: "Unloadable") -> str:
    return f"{each.version} would not load: {each.found}; {each.remedy}"


@db.command("prune")
@click.option(
    "--older-than",
    type=Duration(),
    metavar="30d",
    help="Delete what is older than this. Default: than the settings say.",
)
@click.option(
    "--kind",
    "kinds",
    type=KINDS,
    multiple=True,
    help="Only data of this kind; repeatable. Default: all that the settings keep for some time. "
    "`jobs` are whole jobs, with what they made.",
)
@click.option("--dry-run", is_flag=True, help="Only show how many rows would be deleted.")
@click.option("--yes", is_flag=True, help="Remove jobs without asking.")
@as_json
def prune(
    older_than: timedelta | None, kinds: tuple[str, ...], dry_run: bool, yes: bool, as_json: bool
) -> None:
    """Delete what finished jobs left behind and the settings GENMILL_KEEP_..._DAYS no longer keep.

    A scheduler does the same, a little in each round. Jobs, shards and model versions stay, but for
    jobs that --kind jobs names: of those, the ones stay that anything names.

    \b
    genmill db prune --dry-run
    GENMILL_KEEP_LOGS_DAYS=7 genmill db prune
    genmill db prune --kind logs --kind checkpoints --older-than 30d
    """
    from scheduler.cli.record import open_record
    from scheduler.dispatch import retention
    from scheduler.output.render import print_json, print_table

    if dry_run and yes:
        raise click.UsageError("--dry-run changes nothing, and --yes does it; give one of them")
    with open_record() as services:
        keep = retention.chosen(services, kinds, older_than)
        jobs = keep.pop(retention.JOBS, None)
        if jobs is not None and not (dry_run or yes):
            agree("jobs that nothing names, with what they made,")
        deleted = (retention.prunable if dry_run else retention.prune)(services, keep)
        rows = _rows(deleted, keep)
        document: dict[str, object] = {"dry_run": dry_run, "deleted": rows}
        told: list[str] = []
        if jobs is not None:
            pruned = retention.prune_jobs(services, jobs, dry_run=dry_run)
            rows.append(pruned.row)
            document |= {"size_bytes": pruned.size_bytes, "held": pruned.held}
            told = list(pruned.told)
    if as_json:
        print_json(document)
        return
    print_table(rows, ("data", "older_than_days", "table", "rows"))
    for line in told:
        click.echo(line, err=True)


def _rows(
    deleted: Mapping[str, Mapping[str, int]], keep: Mapping[str, timedelta]
) -> list[dict[str, object]]:
    return [
        {
            "data": what,
            "older_than_days": keep[what].total_seconds() / 86_400,
            "table": table,
            "rows": count,
        }
        for what, tables in deleted.items()
        for table, count in tables.items()
    ]


@db.command("removed")
@click.option(
    "--kind",
    type=click.Choice(["job", "batch", "model", "dataset", "artifact"]),
    help="Only what was of this kind. Default: all but artifacts.",
)
@with_limit("of them")
@listed
def removed(kind: str | None, limit: int, as_json: bool, quiet: bool) -> None:
    """List what was removed, the latest first: what it was, how large, by whom and when.

    \b
    genmill db removed --kind model
    """
    from db import tombstones
    from db.readable import read_each, refuse_unreadable
    from scheduler.cli.record import open_record
    from scheduler.output.documents import tombstone_document
    from scheduler.output.render import print_list, to_size

    with open_record() as services, services.database.read() as session:
        found, bad = read_each(
            session,
            tombstones.select_newest(kind=kind, limit=limit),
            lambda rows: [tombstone_document(each) for (each,) in rows],
        )
    told = [
        each | {"size": to_size(each["size_bytes"]), "then": "hidden" if each["kept"] else "gone"}
        for each in found
    ]
    print_list(found, REMOVED, as_json=as_json, quiet=quiet, rows=told)
    refuse_unreadable("tombstone", bad)
