"""`genmill scheduler`: the process that hands out work and repairs what went wrong."""

import click

from scheduler.cli.record import refuse_other_schema


@click.command("scheduler")
def scheduler() -> None:
    """Run a scheduler in the foreground.

    It hands queued work to workers, reclaims the work of dead ones, finishes jobs and fires
    schedules. Several may run side by side: no schedule fires twice.

    \b
    genmill db upgrade && genmill scheduler
    """
    from scheduler.dispatch.loop import run_scheduler
    from worker.settings import read_settings

    settings = read_settings()
    refuse_other_schema(settings)
    run_scheduler(settings)
