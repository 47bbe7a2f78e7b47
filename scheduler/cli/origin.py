"""`genmill artifact show` and `which`: where files and artifacts come from."""

import sys
from pathlib import Path
from typing import Any

import click

from scheduler.cli.options import shown
from scheduler.cli.record import open_record
from scheduler.submission.path_arguments import PathArgument


@click.command("show")
@click.argument("what", type=PathArgument(), metavar="FILE|ARTIFACT")
@click.option(
    "--line",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="N",
    help="Of a .jsonl file, the sample in line N.",
)
@shown
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


@click.command("which")
@click.argument(
    "files", type=PathArgument(path_type=Path), nargs=-1, required=True, metavar="FILE..."
)
@shown
def which(files: tuple[Path, ...], as_json: bool) -> None:
    """Say which job made each file: the job, the number of the sample, the model and the seed.

    A file is known by its bytes, or by the record inside it. A picture that was encoded again, as
    JPEG or larger, is compared with every picture in the store. In JSON Lines, tars and Parquet
    tables, all samples are looked up. Exits with 4 if nobody knows a file, and with 2 if one cannot
    be read; the others are told all the same.

    \b
    genmill artifact which digits/*.png
    genmill artifact which holiday.jpg answers.jsonl model.safetensors
    """
    from db.errors import BadInput, NotFound
    from scheduler.output.render import clean, first_lines, print_json, print_table
    from scheduler.results.which import find_makers

    with open_record() as services:
        found = find_makers(services, files, _show_compared)
    _show_compared(None)
    if as_json:
        print_json(found)
    else:
        rows = [each | {"sample": each["samples"]} for each in found if each["found_by"]]
        if rows:
            columns = ("file", "job", "sample", "model", "seed", "found_by", "also")
            print_table(rows, columns if any(row["also"] for row in rows) else columns[:-1])
    faults = [each["fault"] for each in found if "fault" in each]
    unknown = [each for each in found if not each["found_by"] and "fault" not in each]
    for each in unknown:
        for line in each.get("removed", []):
            click.echo(clean(f"{each['file']}: {line}"), err=True)
    if faults:
        raise BadInput("; ".join(first_lines(faults)))
    if unknown:
        names = (f"{each['file']}{_counted_unknown(each)}" for each in unknown)
        raise NotFound(
            f"no job on record is known to have made {', '.join(first_lines([*names]))}",
            remedy="other programs may change a file's bytes and drop the record inside it",
        )


def _counted_unknown(document: dict[str, Any]) -> str:
    """Of a file with many samples, how many are unknown."""
    count = document["count"] or 0
    return f" ({count:,} of its samples)" if count > 1 else ""


def _show_compared(count: int | None) -> None:
    """Show with how many samples files were compared, over the terminal's last line; then clear."""
    if sys.stderr.isatty():
        told = "\x1b[K" if count is None else f"compared with {count:,} samples"
        click.echo(f"\r{told}", nl=False, err=True)
