"""`genmill artifact`: listing, downloading, verifying and reproducing what jobs made."""

import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from scheduler.cli.lazy import DeclaredChoice
from scheduler.cli.options import Duration, as_json
from scheduler.cli.private import shared_as_usual
from scheduler.cli.record import open_record
from scheduler.submission.path_arguments import PathArgument

if TYPE_CHECKING:
    from scheduler.results.download import Downloaded
    from scheduler.results.verify import Verified

FORMS = DeclaredChoice("scheduler.results.download:FORMS")
COLUMNS = ("id", "kind", "name", "size", "media_type", "sha256")


@click.group("artifact")
def artifact() -> None:
    """Download and verify what jobs made. Any unique prefix of an id will do."""


@artifact.command("list")
@click.argument("job")
@as_json
def list_artifacts(job: str, as_json: bool) -> None:
    """List the stored objects of a job.

    \b
    genmill artifact list 0199c0de
    """
    from db import artifacts
    from scheduler.output.documents import artifact_document
    from scheduler.output.render import print_json, print_table, to_size
    from scheduler.results.waiting import find_job

    with open_record() as services, services.database.read() as session:
        found = artifacts.of_job(session, find_job(session, job).id)
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
    type=PathArgument(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Target folder (default genmill-JOB).",
)
@click.option(
    "--as",
    "form",
    type=FORMS,
    help="Format of the samples: single files, tars (webdataset) or JSON Lines; texts of notes "
    "also as MIDI or WAV. Default: jsonl for text, else files.",
)
@as_json
def download(job: str, output: Path | None, form: str | None, as_json: bool) -> None:
    """Download what a job or a batch made; print the folder.

    Every digest is checked, and an interrupted download is resumed. Nothing is written outside DIR.

    \b
    genmill artifact download 0199c0de -o digits
    genmill artifact download 0199c0de -o tunes --as wav
    """
    from scheduler.output.render import print_json, to_count
    from scheduler.results.download import default_folder
    from scheduler.results.download import download as fetch
    from scheduler.results.waiting import find_jobs

    with open_record() as services:
        with services.database.read() as session:
            found = find_jobs(session, [job])
        folder = output or default_folder(found)
        with shared_as_usual():
            done = fetch(services, found, folder, form=form, on_progress=_show_progress)
    if sys.stderr.isatty():
        click.echo("\r", nl=False, err=True)
    if as_json:
        print_json(vars(done) | {"folder": str(done.folder)})
        return
    click.echo(_counted(done), err=True)
    if done.silent:
        click.echo(f"{to_count(done.silent, 'text')} without notes skipped", err=True)
    click.echo(str(done.folder))


def _show_progress(done: "Downloaded") -> None:
    """Show the progress of a download, over the terminal's last line."""
    from scheduler.output.render import to_size

    if sys.stderr.isatty():
        click.echo(f"\r{_counted(done)}, {to_size(done.size_bytes)}", nl=False, err=True)


def _counted(done: "Downloaded | Verified") -> str:
    from scheduler.output.render import to_count

    return f"{to_count(done.objects, 'object')}, {to_count(done.samples, 'sample')}"


@artifact.command("url")
@click.argument("artifact_id", metavar="ARTIFACT")
@click.option(
    "--expires", type=Duration(), default="15m", help="How long the URL is valid (default 15m)."
)
@as_json
def url(artifact_id: str, expires: timedelta, as_json: bool) -> None:
    """Print a temporary URL of one object. What is stored together with others is copied first.

    \b
    curl -o shard.tar "$(genmill artifact url 0199c0de --expires 1h)"
    """
    from db import artifacts
    from scheduler.output.render import print_json
    from worker.services.samples import own_object

    with open_record() as services:
        with services.database.read() as session:
            found = artifacts.get(session, artifact_id)
        address = services.store.url(own_object(services, found), int(expires.total_seconds()))
    print_json({"id": found.id, "url": address}) if as_json else click.echo(address)


@artifact.command("show")
@click.argument("what", type=PathArgument(), metavar="FILE|ARTIFACT")
@click.option(
    "--line",
    type=click.IntRange(1),
    default=1,
    metavar="N",
    help="Of a .jsonl file, the sample in line N (default 1).",
)
@as_json
def show(what: str, line: int, as_json: bool) -> None:
    """Show where a sample or an artifact comes from.

    Names the job, the model version and its data, the version of the code, the seed and the number
    of the sample. A FILE is a sample as it was downloaded; whether its bytes are still those on
    record is said as well.

    \b
    genmill artifact show digits/000000017.png
    genmill artifact show 0199c0de
    """
    import os

    from scheduler.output.render import print_fields, print_json, print_table
    from scheduler.results.origin import origin_of_artifact, origin_of_file

    with open_record() as services:
        if os.path.lexists(what) or Path(what).suffix:
            found = origin_of_file(services, Path(what), line)
        else:
            found = origin_of_artifact(services, what)
    if as_json:
        print_json(found)
        return
    versions = found.pop("versions")
    print_fields(found)
    print_table(versions, ("version", "dataset", "parent", "job"), heading="VERSION")


@artifact.command("verify")
@click.argument("job", metavar="JOB|BATCH")
@as_json
def verify(job: str, as_json: bool) -> None:
    """Check that everything a job made is complete and unchanged.

    Reads every object and sample and compares its SHA-256 with the record. Exits with 1 if
    anything is wrong.

    \b
    genmill artifact verify 0199c0de
    """
    from db.errors import DigestMismatch
    from scheduler.output.render import first_lines, print_json, to_count
    from scheduler.results.verify import verify as check
    from scheduler.results.waiting import find_jobs

    with open_record() as services:
        with services.database.read() as session:
            found = find_jobs(session, [job])
        checked = {each.id: check(services, each) for each in found}
    if as_json:
        print_json([{"job": key} | vars(result) for key, result in checked.items()])
    else:
        for key, result in checked.items():
            click.echo(f"{key}  {_counted(result)}, {to_count(len(result.problems), 'problem')}")
    problems = [
        f"job {key}: {problem}" if len(checked) > 1 else problem
        for key, result in checked.items()
        for problem in result.problems
    ]
    if problems:
        raise DigestMismatch("\n".join(first_lines(problems)))


@artifact.command("reproduce")
@click.argument("job")
@click.argument("index", type=click.IntRange(0))
@as_json
def reproduce(job: str, index: int, as_json: bool) -> None:
    """Generate one sample again and compare it byte by byte.

    A worker makes it. Exits with 1 if a byte differs. The versions of Genmill and PyTorch in its
    record may be others than they were, after an upgrade: then pixels, sound or text are compared.

    \b
    genmill artifact reproduce 0199c0de 17
    """
    from db.errors import DigestMismatch
    from scheduler.output.render import print_json, show
    from scheduler.results.verify import reproduce as make_again
    from scheduler.results.waiting import find_job

    with open_record() as services:
        with services.database.read() as session:
            found = find_job(session, job)
        compared = make_again(
            services,
            found,
            index,
            on_stored=lambda job_id: click.echo(f"made again by job {job_id}", err=True),
        )
    if as_json:
        print_json(vars(compared) | {"equal": compared.equal, "reproduced": compared.reproduced})
    if not compared.reproduced:
        why = show(compared.differences) or "no recorded setting differs"
        raise DigestMismatch(f"sample {index} differs from the one on record ({why})")
    if as_json:
        return
    click.echo(f"sample {index} is the same: {compared.new_sha256}")
    for name, made in compared.differences.items():
        click.echo(f"its record names {name} {made['now']}; it was {made['then']}", err=True)
