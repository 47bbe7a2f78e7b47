"""`genmill backup` and `restore`: a copy of everything, and the way back."""

import sys
from pathlib import Path

import click

from scheduler.cli.options import as_json
from scheduler.submission.path_arguments import PathArgument

FOLDER = PathArgument(file_okay=False, path_type=Path)


@click.command("backup")
@click.argument("folder", type=FOLDER, metavar="DIR")
@click.option(
    "--objects",
    "mode",
    type=click.Choice(["copy", "list"]),
    help="Copy the store's objects, or only list them with sizes and digests. Default: copy those "
    "of a folder, list those of a bucket.",
)
@as_json
def backup(folder: Path, mode: str | None, as_json: bool) -> None:
    """Copy the record and the store into a new folder, while everything runs; print the folder.

    What is copied is checked against the digests on record. An interrupted backup is resumed from
    DIR.partial. Exits with 1 if objects on record are missing or damaged: the backup is complete
    without them.

    \b
    genmill backup /backups/genmill-monday
    """
    from db.errors import DigestMismatch
    from scheduler.cli.record import open_record
    from scheduler.output.render import first_lines, print_json, to_count, to_size
    from scheduler.recovery.backup import back_up

    try:
        with open_record() as services:
            made = back_up(services, folder, mode=mode, show=show_progress)  # type: ignore[arg-type] # Click has checked it
    except KeyboardInterrupt:
        click.echo("interrupted; run it again to go on where it stopped", err=True)
        raise
    end_progress()
    if as_json:
        print_json(vars(made) | {"folder": str(made.folder)})
    else:
        verb = "copied" if made.mode == "copy" else "listed"
        click.echo(f"{to_count(made.count, 'object')} {verb}, {to_size(made.size_bytes)}", err=True)
        click.echo(str(made.folder))
    if made.problems:
        raise DigestMismatch("\n".join(first_lines(made.problems)))


@click.command("restore")
@click.argument("folder", type=FOLDER, metavar="DIR")
@as_json
def restore(folder: Path, as_json: bool) -> None:
    """Restore a backup into a new home, or into an empty database and its store.

    All digests are checked first. What ran when the backup was made is queued again; no failure is
    counted. Who restored it, and when, is in the audit trail.

    \b
    GENMILL_HOME=/data/genmill genmill restore /backups/genmill-monday
    """
    from scheduler.machine.home import create_home
    from scheduler.output.render import print_fields, print_json
    from scheduler.recovery.restore import restore as bring_back
    from worker.identity import who
    from worker.services import open_services

    services = open_services()
    create_home(services.settings)
    try:
        restored = bring_back(services, folder, who=who(), show=show_progress)
    finally:
        services.close()
    end_progress()
    document = vars(restored) | {"folder": str(restored.folder)}
    print_json(document) if as_json else print_fields(document)


def show_progress(what: str, count: int) -> None:
    """Show progress over the terminal's last line."""
    if sys.stderr.isatty():
        click.echo(f"\r{what}: {count:,}   ", nl=False, err=True)


def end_progress() -> None:
    """Begin a new line after the progress."""
    if sys.stderr.isatty():
        click.echo("\r", nl=False, err=True)
