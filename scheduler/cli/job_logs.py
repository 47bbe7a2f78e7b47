"""`genmill job logs`: what workers wrote about a job."""

from datetime import timedelta
from typing import TYPE_CHECKING

import click

from scheduler.cli.options import Duration, as_json
from scheduler.cli.record import open_record

if TYPE_CHECKING:
    from db.tables import LogLine


@click.command("logs")
@click.argument("id")
@click.option("-f", "--follow", is_flag=True, help="Go on with new lines until the job ends.")
@click.option(
    "--tail",
    type=click.IntRange(0, 1_000_000),
    metavar="N",
    help="Only the last N of the lines that are there.",
)
@click.option(
    "--since", type=Duration(), metavar="1h", help="Only lines written within this time span."
)
@as_json
def logs(id: str, follow: bool, tail: int | None, since: timedelta | None, as_json: bool) -> None:
    """Print the log of a job, oldest line first.

    That of a training tells its story: data, parameters, each validation, checkpoints, what ended
    it, and where the version is stored.

    \b
    genmill job logs 0199c0de --tail 20 --follow
    """
    from db import jobs
    from scheduler.results.logs import new_lines, read_log

    with open_record() as services:
        job, lines, seen = read_log(services, id, since=since, tail=tail)
        for line in lines:
            _print_line(line, as_json=as_json)
        if not follow:
            return
        for line in new_lines(services, job, seen):
            _print_line(line, as_json=as_json)
        with services.database.read() as session:
            ended = jobs.get(session, job.id)
    click.echo(
        f"job {ended.id} {ended.status}{f': {ended.error}' if ended.error else ''}", err=True
    )


def _print_line(line: "LogLine", *, as_json: bool) -> None:
    from scheduler.output.render import clean, print_json, to_iso

    if as_json:
        row = {"at": line.at, "level": line.level, "message": line.message}
        print_json(row, line=True)
    else:
        click.echo(f"{to_iso(line.at)} {line.level:7} {clean(line.message)}")
