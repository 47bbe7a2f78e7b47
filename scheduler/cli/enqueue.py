"""`genmill enqueue`: the commands are declared in `scheduler.submission.arguments`."""

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from scheduler.cli.record import open_record
from scheduler.submission.arguments import COMMANDS, EnqueueCommand

if TYPE_CHECKING:
    from worker.services import Services


def _submit(command: EnqueueCommand) -> None:
    from scheduler.cli.watching import wait_shown

    with open_record() as services:
        if command.dry_run:
            _show_plan(services, command)
            return
        reference, job_ids = _store(services, command)
        if not command.as_json:
            click.echo(reference)
        elif not command.wait:
            _print_stored(services, command, reference)
        if command.wait:
            wait_shown(services, job_ids, show="json" if command.as_json else "text", err=True)


enqueue = click.Group(
    "enqueue",
    commands=COMMANDS,
    result_callback=_submit,
    help="""Submit training and generation jobs. Prints nothing but the job's id.

    \b
    genmill job wait "$(genmill enqueue generate digits --count 1000)"
    """,
)


def _store(services: "Services", command: EnqueueCommand) -> tuple[str, list[str]]:
    """Enqueue the command's jobs; return the job's or the batch's id, and the ids of all jobs."""
    from db import jobs
    from scheduler.submission.batches import enqueue_batch
    from scheduler.submission.enqueue import enqueue

    priority, key = command.priority, command.idempotency_key
    if command.spec is not None:
        job = enqueue(services, command.spec, priority=priority, idempotency_key=key)
        return job.id, [job.id]
    batch = enqueue_batch(services, command.lines, priority=priority, idempotency_key=key)
    with services.database.read() as session:
        return batch.id, [job.id for job in jobs.batch_jobs(session, batch.id)]


def _print_stored(services: "Services", command: EnqueueCommand, reference: str) -> None:
    from db import jobs
    from scheduler.output.documents import job_documents
    from scheduler.output.render import print_json

    with services.database.read() as session:
        if command.spec is not None:
            print_json(job_documents(session, [jobs.get(session, reference)])[0])
        else:
            made = jobs.batch_jobs(session, reference, with_spec=True)
            documents = job_documents(session, made)
            print_json({"batch": reference, "jobs": documents})


def _show_plan(services: "Services", command: EnqueueCommand) -> None:
    from scheduler.output.render import print_fields, print_json, to_duration, to_size
    from scheduler.submission.batches import check_batch
    from scheduler.submission.enqueue import estimate, prepare

    if command.spec is None:
        requests = check_batch(services, command.lines, priority=command.priority)
    else:
        requests = [prepare(services, command.spec, priority=command.priority)]
    plans = [estimate(services, request) for request in requests]
    if command.as_json:
        documents = [asdict(plan) for plan in plans]
        print_json(documents if command.spec is None else documents[0])
        return
    seconds = sum(plan.seconds for plan in plans)
    cost = {
        "shards": sum(plan.shards for plan in plans),
        "time": f"about {to_duration(seconds)} of one worker",
    }
    if command.spec is None:
        print_fields({"jobs": len(plans), **cost})
    else:
        (plan,) = plans
        size = f"about {to_size(plan.bytes)}" if plan.bytes else None
        print_fields({**plan.spec, **cost, "size": size})
