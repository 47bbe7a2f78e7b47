"""`genmill worker`: the one command that runs models."""

import click

from scheduler.cli.record import refuse_other_schema


@click.command("worker")
def worker() -> None:
    """Run one worker in the foreground until SIGTERM, which drains it.

    One worker owns one GPU; on CPUs set GENMILL_THREADS to cores divided by workers.

    \b
    GENMILL_DEVICE=cuda:0 genmill worker
    """
    from worker.process.parent import run_worker
    from worker.settings import read_settings

    settings = read_settings()
    refuse_other_schema(settings)
    run_worker(settings)
