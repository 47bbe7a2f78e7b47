"""`genmill target`: the places that samples and models are published to."""

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from scheduler.cli.lazy import DeclaredChoice
from scheduler.cli.options import Duration, as_json, listed, shown
from scheduler.cli.record import open_record

if TYPE_CHECKING:
    from db.tables import Target
    from scheduler.output.documents import Document

KINDS = DeclaredChoice("worker.publishing:KINDS")
COLUMNS = ("name", "kind", "address", "there", "expires_after")


@click.group("target")
def target() -> None:
    """Places that samples and models are published to. Their secrets are never stored."""


@target.command("add")
@click.argument("name")
@click.argument("kind", type=KINDS)
@click.argument("address")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Set something of the kind; repeatable. See `genmill target kinds`.",
)
@click.option(
    "--secret",
    "secrets",
    multiple=True,
    metavar="NAME=PLACE",
    help="Say where a secret is, as env:VARIABLE or file:/path; repeatable. Workers read it there.",
)
@click.option(
    "--expires",
    "expires_after",
    type=Duration(),
    metavar="30d",
    help="Take items down after this time span. Default: never.",
)
@as_json
def add(
    name: str,
    kind: str,
    address: str,
    settings: tuple[str, ...],
    secrets: tuple[str, ...],
    expires_after: timedelta | None,
    as_json: bool,
) -> None:
    """Add a target: a folder, a bucket, a server or a receiver of messages.

    ADDRESS is a path or a URL without user and password. Nothing is connected yet; see `genmill
    target check`.

    \b
    genmill target add shelf folder /srv/shelf
    genmill target add bucket s3 s3://pictures/public --set rate=50
    genmill target add hook webhook https://example.org/in \\
        --secret secret=env:HOOK_SECRET
    genmill target add files sftp sftp://example.org/in --set user=ann \\
        --set fingerprint=SHA256:... --secret key=file:/run/secrets/key
    """
    from scheduler.publishing.manage import add_target

    with open_record() as services:
        added = add_target(
            services,
            name,
            kind,
            address,
            settings=settings,
            secrets=secrets,
            expires_after=expires_after,
        )
    _print(_document(added), as_json=as_json)


def _document(found: "Target") -> "Document":
    from scheduler.output.documents import target_document
    from scheduler.publishing.manage import settings_of

    return target_document(found, settings_of(found))


def _print(document: "Document", *, as_json: bool) -> None:
    from scheduler.output.render import print_json

    print_json(document) if as_json else click.echo(document["name"])


@target.command("list")
@listed
def list_targets(as_json: bool, quiet: bool) -> None:
    """List all targets, and how many items are there.

    \b
    genmill target list
    """
    from db import published, targets
    from db.readable import read_each, refuse_unreadable
    from db.tables import Target
    from scheduler.output.render import print_list
    from scheduler.submission.durations import as_typed

    with open_record() as services, services.database.read() as session:
        found, bad = read_each(
            session,
            targets.select_all(),
            lambda rows: [
                _document(each) | {"there": published.count_there(session, each.id)}
                for (each,) in rows
            ],
            called=Target.name,
        )
    told = [
        each | {"address": each["settings"]["address"]} | {"expires_after": span and as_typed(span)}
        for each in found
        for span in [each["expires_after_s"]]
    ]
    print_list(found, COLUMNS, as_json=as_json, quiet=quiet, rows=told)
    refuse_unreadable("target", bad)


@target.command("kinds")
@listed
def list_kinds(as_json: bool, quiet: bool) -> None:
    """List the kinds of targets, with their settings and secrets.

    \b
    genmill target kinds
    """
    from scheduler.output.render import print_list
    from worker.publishing import KINDS as NAMES
    from worker.publishing import find_kind

    found: list[dict[str, Any]] = []
    for name in NAMES:
        kind = find_kind(name)
        settings = {
            key: field.description
            for key, field in kind.schema.model_fields.items()
            if key != "address"
        }
        found.append(
            {"name": name, "title": kind.title, "settings": settings, "secrets": {**kind.secrets}}
        )
    rows = [
        each | {"settings": ", ".join(each["settings"]), "secrets": ", ".join(each["secrets"])}
        for each in found
    ]
    columns = ("name", "title", "secrets", "settings")
    print_list(found, columns, as_json=as_json, quiet=quiet, rows=rows, prose=True)


@target.command("show")
@click.argument("name")
@shown
def show(name: str, as_json: bool) -> None:
    """Show a target: its settings, where its secrets are, and what is published there.

    \b
    genmill target show shelf
    """
    from db import published, targets
    from scheduler.output.render import print_fields, print_json

    with open_record() as services, services.database.read() as session:
        found = targets.get(session, name)
        counts = published.by_state(session, found.id)
        document = _document(found) | {"publications": counts}
    print_json(document) if as_json else print_fields(document)


@target.command("remove")
@click.argument("name")
@click.option(
    "--abandon", is_flag=True, help="Although items are there: leave them, and follow them no more."
)
@as_json
def remove(name: str, abandon: bool, as_json: bool) -> None:
    """Remove a target. What was published there stays on record.

    \b
    genmill target remove shelf
    """
    from scheduler.output.render import print_json
    from scheduler.removal.targets import remove_target

    with open_record() as services:
        abandoned = remove_target(services, name, abandon=abandon)
    if as_json:
        print_json({"removed": name, "abandoned": abandoned})
        return
    click.echo(name)
    if abandoned:
        click.echo(f"{abandoned:,} items stay there, and are followed no more", err=True)


@target.command("check")
@click.argument("name")
@as_json
def check(name: str, as_json: bool) -> None:
    """Put something small at a target, and take it down again. A webhook gets a message.

    Secrets are read on this machine, as workers read them on theirs.

    \b
    genmill target check shelf
    """
    from scheduler.output.render import print_json
    from scheduler.publishing.manage import check_target

    with open_record() as services:
        where = check_target(services, name)
    print_json({"name": name, "where": where}) if as_json else click.echo(f"{name}: {where} works")
