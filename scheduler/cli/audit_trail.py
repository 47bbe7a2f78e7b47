"""`genmill audit`: who did what that others may ask about later."""

from datetime import timedelta
from typing import Any

import click

from scheduler.cli.options import Duration, listed, with_limit
from scheduler.cli.record import open_record

COLUMNS = ("at", "action", "subject", "who", "detail")


@click.command("audit")
@click.option(
    "--since", type=Duration(), metavar="7d", help="Only what was done within this time span."
)
@click.option(
    "--action", metavar="WORD", help="Only this: promoted, forced, withdrawn, removed or another."
)
@click.option(
    "--subject", metavar="NAME", help="Only what was done to this: NAME:VERSION, an id or a name."
)
@with_limit("entries")
@listed
def audit(since: timedelta | None, as_json: bool, quiet: bool, **filters: Any) -> None:
    """List who published, promoted, forced, withdrew, removed, changed keys or restored a backup.

    The latest first.

    Each entry is a leaf of the ledger: `genmill provenance audit` finds those that were changed.

    \b
    genmill audit --since 7d
    genmill audit --action forced --json
    genmill audit --subject digits:3
    """
    from db import audit_trail
    from db.readable import read_each, refuse_unreadable
    from db.session import clock
    from scheduler.output.documents import audit_document
    from scheduler.output.render import print_list

    with open_record() as services, services.database.read() as session:
        start = clock(session) - since if since else None
        found, bad = read_each(
            session,
            audit_trail.select_newest(since=start, **filters),
            lambda rows: [audit_document(each) for (each,) in rows],
        )
    told = [each | {"detail": _told(each["detail"])} for each in found]
    print_list(found, COLUMNS, as_json=as_json, quiet=quiet, key="id", rows=told, prose=True)
    refuse_unreadable("audit entry", bad)


def _told(detail: dict[str, Any] | None) -> str:
    """The detail in a line, without what says nothing."""
    given = {name: value for name, value in (detail or {}).items() if value not in (None, [], "")}
    return ", ".join(f"{name} {_shown(value)}" for name, value in given.items())


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
