"""`genmill worker`: the one command that runs models."""

import click

from scheduler.cli.record import refuse_other_schema


@click.command("worker")
def worker() -> None:
    """Run a worker in the foreground; SIGTERM makes it save its work and stop.

    Start one worker per GPU. On CPUs, set OMP_NUM_THREADS to the number of cores divided by the
    number of workers: a worker chooses by measuring, up to that. GENMILL_THREADS fixes the number.

    \b
    GENMILL_DEVICE=cuda:0 genmill worker
    """
    from worker.extras import require
    from worker.process.parent import run_worker
    from worker.settings import read_settings

    require("worker", "a worker")
    settings = read_settings()
    refuse_other_schema(settings)
    run_worker(settings)
