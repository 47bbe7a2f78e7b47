"""`genmill publish`: publishing as a job.

Its options are declared in `scheduler.submission.arguments`, because schedules take them too.
"""

from typing import Any

import click

from scheduler.cli.enqueue import submit
from scheduler.cli.record import open_record
from scheduler.submission import arguments


def _publish(**options: Any) -> None:
    from scheduler.publishing.sources import resolved

    command = click.get_current_context().invoke(arguments.publish, **options)
    with open_record() as services:
        command = resolved(services, command)
    submit(command)


publish = click.Command(
    "publish", callback=_publish, params=arguments.publish.params, help=arguments.publish.help
)
