"""`genmill provenance verify`: whether files were made here, and are as they were made."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scheduler.cli.options import as_json
from scheduler.cli.record import open_record
from scheduler.submission.path_arguments import PathArgument

if TYPE_CHECKING:
    from collections.abc import Sequence

Document = dict[str, Any]


@click.command("verify")
@click.argument(
    "files", type=PathArgument(path_type=Path), nargs=-1, required=True, metavar="FILE|DIR..."
)
@click.option(
    "--trust",
    type=PathArgument(path_type=Path),
    metavar="FILE|DIR",
    help="Verify by this trust bundle alone, as `genmill key export` writes it: without database, "
    "store or secrets.",
)
@as_json
def verify(files: tuple[Path, ...], trust: Path | None, as_json: bool) -> None:
    """Say whether files were made here, and whether they are as they were made.

    Names the job, the sample, the model, its data, the seed and the licence; of a changed file, the
    bytes that differ; and what each mark in the file says. A copy that was encoded again, resized
    or cropped is looked up by its fingerprint. In JSON Lines, tars and Parquet tables, every sample
    is verified. Exits with 1 unless all are ours and unchanged.

    \b
    genmill provenance verify digits/*.png
    genmill provenance verify --trust trust.json holiday.jpg
    """
    from db.errors import NotVerified
    from scheduler.cli.verdict_report import print_report, summary
    from scheduler.output.render import print_json

    found = _verified_by(files, trust) if trust else _verified(files)
    _show_count(None)
    if as_json:
        print_json(found)
    else:
        print_report(found)
    if not all(each["intact"] for each in found):
        raise NotVerified(f"not all are ours and unchanged: {summary(found)}")


def _verified(files: "Sequence[Path]") -> list[Document]:
    """By the record, the store and the keys of this installation."""
    from db.errors import Unreachable
    from scheduler.provenance.verify import verify as check
    from worker.keys.keyring import load_keyring

    try:
        with open_record() as services:
            with services.database.read() as session:
                keys = load_keyring(session, services.settings)
            return list(check(services, keys, files, _show_count))
    except Unreachable as error:
        raise Unreachable(
            error.message, remedy=f"{error.remedy}; or give --trust" if error.remedy else _OFFLINE
        ) from error


_OFFLINE = "give --trust BUNDLE to verify without it"


def _verified_by(files: "Sequence[Path]", trust: Path) -> list[Document]:
    """By a trust bundle alone."""
    from scheduler.provenance.verify import verify as check
    from worker.keys.bundle import read_bundle

    return list(check(None, read_bundle(trust), files, _show_count))


def _show_count(count: int | None) -> None:
    """Show how many files were read, over the terminal's last line; then clear it."""
    if sys.stderr.isatty():
        told = "\x1b[K" if count is None else f"read {count:,} files"
        click.echo(f"\r{told}", nl=False, err=True)
