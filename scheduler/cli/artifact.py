"""`genmill artifact`: getting what jobs made, and making sure of it."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from scheduler.cli.options import Duration, Place, as_json
from scheduler.cli.record import open_record

COLUMNS = ("id", "kind", "name", "size", "media_type", "sha256")


@click.group("artifact")
def artifact() -> None:
    """Download and check what jobs made."""


@artifact.command("list")
@click.argument("job")
@as_json
def list_artifacts(job: str, as_json: bool) -> None:
    """List the objects that a job committed.

    \b
    genmill artifact list 0199c0de
    """
    from db import artifacts, jobs
    from scheduler.output.documents import artifact_document
    from scheduler.output.render import print_json, print_table, to_size

    with open_record() as services, services.database.read() as session:
        found = artifacts.of_job(session, jobs.get(session, job).id)
    documents = [artifact_document(each) for each in found]
    if as_json:
        print_json(documents)
    else:
        short = [
            each | {"size": to_size(each["size"]), "sha256": each["sha256"][:12]}
            for each in documents
        ]
        print_table(short, COLUMNS)


@artifact.command("download")
@click.argument("job", metavar="JOB|BATCH")
@click.option(
    "-o",
    "--output",
    type=Place(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Into DIR.",
)
@click.option(
    "--as",
    "form",
    type=click.Choice(("files", "webdataset", "jsonl", "midi", "wav")),
    help="Samples as single files, tars, or JSON Lines (default: files, texts jsonl); texts of "
    "notes as MIDI or WAV.",
)
@as_json
def download(job: str, output: Path | None, form: str | None, as_json: bool) -> None:
    """Fetch what a job or a batch made; prints the folder.

    DIR is genmill-JOB where none is given. Checks every digest, goes on where it stopped, and
    writes nothing outside DIR.

    \b
    genmill artifact download 0199c0de -o digits
    genmill artifact download 0199c0de -o tunes --as wav
    """
    from scheduler.output.render import print_json, to_count
    from scheduler.results.download import download as fetch
    from scheduler.results.follow import find_jobs

    with open_record() as services:
        with services.database.read() as session:
            found = find_jobs(session, [job])
        folder = output or Path(f"genmill-{found[0].batch_id if len(found) > 1 else found[0].id}")
        with _telling() as tell:
            done = fetch(services, found, folder, form=form, tell=tell)
    if as_json:
        print_json(vars(done) | {"folder": str(done.folder)})
        return
    click.echo(_counted(done), err=True)
    if done.silent:
        click.echo(f"{to_count(done.silent, 'text')} without notes left out", err=True)
    click.echo(str(done.folder))


@contextmanager
def _telling() -> Iterator[Callable[[Any], None]]:
    """How far a download is, in one line of the terminal that is written over."""
    from scheduler.output.render import to_size

    def tell(done: Any) -> None:
        if sys.stderr.isatty():
            text = f"\r{_counted(done)}, {to_size(done.size_bytes)}"
            click.echo(text, nl=False, err=True)

    yield tell
    if sys.stderr.isatty():
        click.echo("\r", nl=False, err=True)


def _counted(done: Any) -> str:
    from scheduler.output.render import to_count

    return f"{to_count(done.objects, 'object')}, {to_count(done.samples, 'sample')}"


@artifact.command("url")
@click.argument("artifact_id", metavar="ARTIFACT")
@click.option("--expires", type=Duration(), default="15m", help="How long it works (default 15m).")
@as_json
def url(artifact_id: str, expires: timedelta, as_json: bool) -> None:
    """Print an address that one object can be read from.

    \b
    curl -o shard.tar "$(genmill artifact url 0199c0de --expires 1h)"
    """
    from db import artifacts
    from scheduler.output.render import print_json

    with open_record() as services:
        with services.database.read() as session:
            found = artifacts.get(session, artifact_id)
        address = services.store.url(found.key, int(expires.total_seconds()))
    print_json({"id": found.id, "url": address}) if as_json else click.echo(address)


@artifact.command("verify")
@click.argument("job", metavar="JOB|BATCH")
@as_json
def verify(job: str, as_json: bool) -> None:
    """Compare all that a job made with the record.

    Reads every object and sample and checks its SHA-256; exit 1 where something is wrong.

    \b
    genmill artifact verify 0199c0de
    """
    from db.errors import DigestMismatch
    from scheduler.output.render import print_json, to_count
    from scheduler.results.follow import find_jobs
    from scheduler.results.verify import verify as check

    with open_record() as services:
        with services.database.read() as session:
            found = find_jobs(session, [job])
        checked = {each.id: check(services, each) for each in found}
    if as_json:
        print_json([{"job": key} | vars(result) for key, result in checked.items()])
    for key, result in checked.items():
        if not as_json:
            click.echo(f"{key}  {_counted(result)}, {to_count(len(result.problems), 'problem')}")
    if problems := [problem for result in checked.values() for problem in result.problems]:
        raise DigestMismatch("\n".join(problems[:20]))


@artifact.command("reproduce")
@click.argument("job")
@click.argument("index", type=click.IntRange(0))
@as_json
def reproduce(job: str, index: int, as_json: bool) -> None:
    """Make one sample again and compare it.

    A worker makes it; exit 1 where a byte differs.

    \b
    genmill artifact reproduce 0199c0de 17
    """
    from db import jobs
    from db.errors import DigestMismatch
    from scheduler.output.render import print_json, show
    from scheduler.results.verify import reproduce as make_again

    with open_record() as services:
        with services.database.read() as session:
            found = jobs.get(session, job)
        compared = make_again(services, found, index)
    if as_json:
        print_json(vars(compared) | {"equal": compared.equal})
    if not compared.equal:
        why = show(compared.differences) or "no recorded setting differs"
        raise DigestMismatch(f"sample {index} differs from the one on record ({why})")
    if not as_json:
        click.echo(f"sample {index} is the same: {compared.new_sha256}")
