"""`genmill enqueue`: parse the arguments (`scheduler.submission.arguments`), insert the rows."""

from typing import TYPE_CHECKING, Any

import click

from scheduler.cli.record import open_record
from scheduler.submission.arguments import COMMANDS, EnqueueCommand

if TYPE_CHECKING:
    from worker.services import Services


def _submit(command: EnqueueCommand) -> None:
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
            _wait(services, command, job_ids)


enqueue = click.Group(
    "enqueue",
    commands=COMMANDS,
    result_callback=_submit,
    help="""Ask for training or generation. Prints the id of the job, alone.

    \b
    genmill job wait "$(genmill enqueue generate digits --count 1000)"
    """,
)


def _store(services: "Services", command: EnqueueCommand) -> tuple[str, list[str]]:
    """Store what was asked for; return the job's or batch's id, and the ids of all jobs."""
    from db import jobs
    from scheduler.submission.batches import enqueue_batch
    from scheduler.submission.enqueue import enqueue

    how: dict[str, Any] = {
        "priority": command.priority,
        "idempotency_key": command.idempotency_key,
    }
    if command.spec is not None:
        job = enqueue(services, command.spec, **how)
        return job.id, [job.id]
    batch = enqueue_batch(services, command.lines, **how)
    with services.database.read() as session:
        return batch.id, [job.id for job in jobs.batch_jobs(session, batch.id)]


def _print_stored(services: "Services", command: EnqueueCommand, reference: str) -> None:
    from db import jobs
    from scheduler.output.documents import job_document
    from scheduler.output.render import print_json

    with services.database.read() as session:
        if command.spec is not None:
            print_json(job_document(jobs.get(session, reference)))
            return
        made = [job_document(job) for job in jobs.batch_jobs(session, reference)]
    print_json({"batch": reference, "jobs": made})


def _show_plan(services: "Services", command: EnqueueCommand) -> None:
    from dataclasses import asdict

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
    time = to_duration(sum(plan.seconds for plan in plans))
    fields = {
        "shards": sum(plan.shards for plan in plans),
        "time": f"about {time} of one worker",
    }
    if command.spec is None:
        print_fields({"jobs": len(plans), **fields})
    else:
        (plan,) = plans
        size = f"about {to_size(plan.bytes)}" if plan.bytes else None
        print_fields({**plan.spec, **fields, "size": size})


def _wait(services: "Services", command: EnqueueCommand, job_ids: list[str]) -> None:
    from scheduler.cli.watching import wait_shown

    wait_shown(services, job_ids, show="json" if command.as_json else "text", err=True)
