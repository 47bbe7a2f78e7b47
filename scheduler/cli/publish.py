"""`genmill publish`: publishing as a job.

Its options are declared in `scheduler.submission.arguments`, because schedules take them too.
"""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from scheduler.cli.enqueue import submit
from scheduler.cli.record import open_record
from scheduler.submission import arguments

if TYPE_CHECKING:
    from worker.services import Services


def _publish(**options: Any) -> None:
    from scheduler.publishing.sources import resolved

    command = click.get_current_context().invoke(arguments.publish, **options)
    with open_record() as services:
        command = resolved(services, command)
    submit(command, _tell_counts)


def _tell_counts(services: "Services", job_ids: Sequence[str]) -> None:
    """Say on stderr what became of the items."""
    from db import jobs
    from scheduler.output.documents import published_counts

    found = Counter[str]()
    with services.database.read() as session:
        for job_id in job_ids:
            found.update(published_counts(session, jobs.get(session, job_id, kept=True)))
    told = ", ".join(f"{number:,} {state}" for state, number in found.items())
    click.echo(f"items: {told or 'none'}", err=True)


publish = click.Command(
    "publish", callback=_publish, params=arguments.publish.params, help=arguments.publish.help
)
