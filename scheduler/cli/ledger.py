"""`genmill provenance proof` and `audit`: the ledger, for strangers and for ourselves."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from scheduler.cli.options import as_json
from scheduler.cli.record import open_record
from scheduler.submission.path_arguments import PathArgument

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, TypeVar

    from scheduler.audit.violations import Violation
    from scheduler.results.heads import Head
    from worker.services import Services

    F = TypeVar("F", bound=Callable[..., Any])

_FILE = PathArgument(dir_okay=False, path_type=Path)
outside_heads = click.option(
    "--head",
    "heads",
    type=_FILE,
    multiple=True,
    metavar="FILE",
    help="A head that was kept outside, by `provenance audit --output` or in a proof; repeatable.",
)


def _output(told: str) -> "Callable[[F], F]":
    return click.option("-o", "--output", "--out", "out", type=_FILE, metavar="FILE", help=told)


@click.command("proof")
@click.argument("job", metavar="ARTIFACT|JOB")
@_output("Write the proof to a file.")
@click.option(
    "--head",
    "older",
    type=_FILE,
    metavar="FILE",
    help="Also prove that the ledger has only grown since an older head, such as that of an "
    "earlier proof.",
)
@as_json
def proof(job: str, out: Path | None, older: Path | None, as_json: bool) -> None:
    """Prove to anybody what a job made and that the record of it is unchanged.

    The proof is one JSON file: the job's manifest, the digests of its samples, and the path from
    the manifest to a signed head of the ledger. docs/verify_proof.py checks it, without Genmill.

    \b
    genmill provenance proof 0199c0de -o proof.json
    python verify_proof.py proof.json digits/000000017.png --key key.pem
    """
    from scheduler.cli.private import shared_as_usual
    from scheduler.output.render import print_json, to_count
    from scheduler.results.heads import read_head, write_json
    from scheduler.results.proof import make_proof

    before = read_head(older) if older else None
    with open_record() as services:
        made = make_proof(services, job, before)
    if made.left_out:
        told = f"the digests of {to_count(made.left_out, 'sample')} are left out"
        click.echo(f"{told}: prove the artifact that holds a sample instead", err=True)
    if out is None:
        print_json(made.document)
        return
    with shared_as_usual():
        write_json(out, made.document)
    if as_json:
        print_json(made.brief | {"file": str(out)})
    else:
        click.echo(str(out))


@click.command("audit")
@outside_heads
@_output("Write the newest head to a file, if all is well.")
@as_json
def audit(heads: tuple[Path, ...], out: Path | None, as_json: bool) -> None:
    """Find whatever was changed behind the ledger's back; exit with 1 if anything was.

    Every leaf, hash and signed head is checked, every row that the ledger tells of, and every
    manifest. Only a head that was kept outside shows that the newest leaves were cut off, or that
    everything was written anew. `genmill doctor --audit` checks the whole record.

    \b
    genmill provenance audit -o /safe/place/head.json
    genmill provenance audit --head /safe/place/head.json
    """
    from db.errors import BadRecord, GenmillError, Refused
    from scheduler.cli.private import shared_as_usual
    from scheduler.output.render import clean, print_json, to_count, to_iso
    from scheduler.results.heads import read_head, write_json

    outside = [read_head(file) for file in heads]
    with open_record() as services:
        head = None
        with suppress(BadRecord):  # which the audit tells of
            head = _newest_head(services)
        found = _violations(services, outside, quiet=as_json)
    if as_json:
        told = {"ok": not found, "head": head and head.document}
        texts = [str(each) for each in found]
        print_json(told | {"leaves": head.size if head else 0, "violations": texts})
    if found:
        raise GenmillError(f"{to_count(len(found), 'violation')} found")
    if out is not None:
        if head is None:
            raise Refused("the ledger has no head yet", remedy="wait until a job has ended")
        with shared_as_usual():
            write_json(out, head.document)
    if not as_json:
        signed = f"; {head.size:,} leaves, signed {to_iso(head.at)}" if head else ""
        click.echo(clean(f"no violation{signed}"), err=True)


def _newest_head(services: "Services") -> "Head | None":
    from db import keys, ledger
    from scheduler.results.heads import head_of

    with services.database.read() as session:
        log, row = ledger.current(session), ledger.newest_head(session)
        if log is None or row is None:
            return None
        known = {key.id: key.public or "" for key in keys.listing(session)}
        return head_of(log.id, row, known.get(row.key_id, ""))


def _violations(
    services: "Services", outside: "Sequence[Head]", *, quiet: bool
) -> "list[Violation]":
    from scheduler.audit.auditor import Auditor
    from scheduler.output.render import clean

    found = []
    for violation in Auditor(services).ledger_violations(outside):
        found.append(violation)
        if not quiet:
            click.echo(clean(str(violation)))
    return found
