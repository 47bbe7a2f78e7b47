"""`genmill artifact`: listing, downloading, verifying and reproducing what jobs made."""

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from scheduler.cli.lazy import DeclaredChoice
from scheduler.cli.options import Duration, Numbers, as_json, listed
from scheduler.cli.origin import show, which
from scheduler.cli.private import shared_as_usual
from scheduler.cli.record import open_record
from scheduler.submission.path_arguments import PathArgument

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scheduler.results.download import Downloaded
    from scheduler.results.marks_file import Marks
    from scheduler.results.verify import Verified

FORMS = DeclaredChoice("scheduler.results.download:FORMS")
COLUMNS = ("id", "kind", "name", "size", "media_type", "sha256")


@click.group("artifact")
def artifact() -> None:
    """Download and verify what jobs made. Any unique prefix of an id will do."""


artifact.add_command(show)
artifact.add_command(which)


@artifact.command("list")
@click.argument("job")
@listed
def list_artifacts(job: str, as_json: bool, quiet: bool) -> None:
    """List the stored objects of a job.

    \b
    genmill artifact list 0199c0de
    """
    from db import artifacts
    from db.readable import read_each, refuse_unreadable
    from scheduler.output.documents import artifact_document
    from scheduler.output.render import print_list, to_size
    from scheduler.results.waiting import find_job

    with open_record() as services, services.database.read() as session:
        found, bad = read_each(
            session,
            artifacts.select_of_job(find_job(session, job, kept=True).id),
            lambda rows: [artifact_document(each) for (each,) in rows],
        )
    told = (each | {"size": to_size(each["size"]), "sha256": each["sha256"][:12]} for each in found)
    print_list(found, COLUMNS, as_json=as_json, quiet=quiet, key="id", rows=told)
    refuse_unreadable("artifact", bad)


@artifact.command("download")
@click.argument("job", metavar="JOB|BATCH")
@click.option(
    "-o",
    "--output",
    type=PathArgument(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Target folder. Default: genmill-JOB.",
)
@click.option(
    "--as",
    "form",
    type=FORMS,
    help="Format of the samples: single files, tars (webdataset), JSON Lines, a Parquet table; "
    "pictures and sounds also as folders of labels with metadata.jsonl (imagefolder, audiofolder); "
    "texts of notes also as MIDI or WAV. Default: jsonl for text, else files.",
)
@click.option(
    "--sample",
    "numbers",
    type=Numbers(),
    multiple=True,
    metavar="N",
    help="Only the samples with these numbers, as in 17,20-30; repeatable.",
)
@click.option(
    "--pattern",
    "patterns",
    multiple=True,
    metavar="GLOB",
    help="Only files whose names match, as in '*.png'; repeatable.",
)
@click.option(
    "--partial", is_flag=True, help="Take what is there so far of a job that has not ended."
)
@as_json
def download(
    job: str,
    output: Path | None,
    form: str | None,
    numbers: tuple[tuple[range, ...], ...],
    patterns: tuple[str, ...],
    partial: bool,
    as_json: bool,
) -> None:
    """Download what a job or a batch made; print the folder.

    Every digest is checked, and an interrupted download is resumed. Nothing is written outside DIR,
    and samples of other downloads in it are not replaced. Files that are made of samples, as MIDI
    and WAV are of notes, are marked anew with what of the job's marks fits them; what does not is
    told, and listed in marks.json. Of a batch, each job has a folder of its id, but JSON Lines and
    Parquet are one file for all, in the order of the batch.

    \b
    genmill artifact download 0199c0de -o digits
    genmill artifact download 0199c0de --sample 17,20-30 --pattern '*.png'
    genmill artifact download 0199c0de -o table --as parquet
    genmill artifact download 0199c0de -o tunes --as wav
    """
    from itertools import chain

    from scheduler.cli.transfer_bar import TransferBar
    from scheduler.output.render import print_json
    from scheduler.results.choice import Choice
    from scheduler.results.download import default_folder
    from scheduler.results.download import download as fetch
    from scheduler.results.waiting import find_jobs

    with open_record() as services:
        with services.database.read() as session:
            found = find_jobs(session, [job], kept=True)
        with shared_as_usual(), TransferBar() as bar:
            done = fetch(
                services,
                found,
                output or default_folder(found),
                form=form,
                choice=Choice.of(chain.from_iterable(numbers), patterns),
                partial=partial,
                on_total=bar.expect,
                on_bytes=bar.advance,
            )
    if as_json:
        print_json(done.document())
        return
    for line in _told(done):
        click.echo(line, err=True)
    click.echo(str(done.folder))


def _told(done: "Downloaded") -> "Iterator[str]":
    """What people should know of a download."""
    from scheduler.output.render import to_count, to_size

    yield f"{_counted(done)}, {to_size(done.size_bytes)}"
    if done.silent:
        yield f"{to_count(done.silent, 'text')} without notes skipped"
    if done.marks:
        yield from _told_marks(done.marks)
    if done.unfinished:
        so_far = f"{done.samples:,} of {done.expected:,} samples so far" if done.expected else ""
        so_far = so_far or f"{to_count(done.unfinished, 'job')} not ended yet"
        yield f"partial: {so_far}; run the same command again for the rest"
    elif done.partial:
        yield f"incomplete: {done.expected:,} samples were asked for, {done.samples:,} were made"


def _told_marks(marks: "Marks") -> "Iterator[str]":
    """What became of the marks of samples in files that were made of them."""
    from scheduler.output.render import clean

    made = [f"{name} {count['applied']:,}" for name, count in marks.items() if count["applied"]]
    if made:
        yield f"marks made anew in the converted files: {', '.join(made)}"
    for name, count in marks.items():
        for why, files in count["not_applied"].items():
            yield clean(f"without the mark {name}: {files:,}, {why}")


def _counted(done: "Downloaded | Verified") -> str:
    from scheduler.output.render import to_count

    return f"{to_count(done.objects, 'object')}, {to_count(done.samples, 'sample')}"


@artifact.command("url")
@click.argument("artifact_id", metavar="ARTIFACT")
@click.option(
    "--expires",
    type=Duration(),
    default="15m",
    show_default=True,
    metavar="15m",
    help="How long the URL is valid.",
)
@as_json
def url(artifact_id: str, expires: timedelta, as_json: bool) -> None:
    """Print a temporary URL of one object. What is stored together with others is copied first.

    Objects of an encrypted store have none.

    \b
    curl -o shard.tar "$(genmill artifact url 0199c0de --expires 1h)"
    """
    from db import artifacts
    from scheduler.output.render import print_json
    from worker.services.samples import own_object

    with open_record() as services:
        with services.database.read() as session:
            found = artifacts.get(session, artifact_id)
        services.store.refuse_without_urls()
        address = services.store.url(own_object(services, found), int(expires.total_seconds()))
    print_json({"id": found.id, "url": address}) if as_json else click.echo(address)


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
            found = find_jobs(session, [job], kept=True)
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
    Signatures carry a time: what they sign is compared.

    \b
    genmill artifact reproduce 0199c0de 17
    """
    from db.errors import DigestMismatch
    from scheduler.output.render import print_json, show
    from scheduler.results.verify import reproduce as make_again
    from scheduler.results.waiting import find_job

    with open_record() as services:
        with services.database.read() as session:
            found = find_job(session, job, kept=True)
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
    if compared.same_but_signed:
        click.echo("only its signature differs, which carries a time", err=True)
    for name, made in compared.differences.items():
        click.echo(f"its record names {name} {made['now']}; it was {made['then']}", err=True)
