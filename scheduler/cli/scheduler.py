"""`genmill scheduler`: doorbells, expired leases, finished jobs and schedules."""

import click

from scheduler.cli.record import refuse_other_schema


@click.command("scheduler")
def scheduler() -> None:
    """Run one scheduler in the foreground: doorbells, expired leases, finished jobs, schedules.

    Any number may run; they never fire a schedule twice.

    \b
    genmill db upgrade && genmill scheduler
    """
    from scheduler.dispatch.loop import run_scheduler
    from worker.settings import read_settings

    settings = read_settings()
    refuse_other_schema(settings)
    run_scheduler(settings)
