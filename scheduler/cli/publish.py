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

NAMED = 5  # items that were not published


def _publish(**options: Any) -> None:
    from scheduler.publishing.sources import resolved

    command = click.get_current_context().invoke(arguments.publish, **options)
    with open_record() as services:
        command = resolved(services, command)
    submit(command, _tell_counts)


def _tell_counts(services: "Services", job_ids: Sequence[str]) -> None:
    """Say on stderr what became of the items, and why the first ones were not published."""
    from db import jobs
    from scheduler.output.documents import not_published_documents, published_counts
    from scheduler.output.render import show

    found, left = Counter[str](), list[Any]()
    with services.database.read() as session:
        for job_id in job_ids:
            job = jobs.get(session, job_id, kept=True)
            found.update(published_counts(session, job))
            left += not_published_documents(session, job)
    told = ", ".join(f"{number:,} {state}" for state, number in found.items())
    click.echo(f"items: {told or 'none'}", err=True)
    for each in left[:NAMED]:
        click.echo(f"{show(each['item'])}: {show(each['reason'])}", err=True)


publish = click.Command(
    "publish", callback=_publish, params=arguments.publish.params, help=arguments.publish.help
)
