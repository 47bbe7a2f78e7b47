"""`genmill enqueue`: the commands are declared in `scheduler.submission.arguments`."""

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from scheduler.cli.receipt import Receipt
from scheduler.cli.record import open_record
from scheduler.submission.arguments import COMMANDS, EnqueueCommand

if TYPE_CHECKING:
    from db.tables import Job
    from scheduler.submission.estimates import Plan
    from scheduler.submission.receipts import OnStored
    from scheduler.submission.requests import Request, Unchecked
    from scheduler.submission.spool import Show
    from worker.services import Services

    Tell = Callable[["Services", Sequence[str]], None]


def submit(command: EnqueueCommand, tell: "Tell | None" = None) -> None:
    """Store the jobs of a command and print what it asks for.

    With `--wait`, `tell` is called once all of them have succeeded.
    """
    from db.errors import JobFailed, TimedOut
    from scheduler.cli.watching import wait_shown

    if command.timeout and not command.wait:
        raise click.UsageError("--timeout limits the time of --wait: give both")
    ignored: Counter[str] = Counter()  # keys of a batch's lines
    with open_record() as services, Receipt(as_json=command.as_json) as receipt:
        _refuse_unusable_judges(command)
        if command.dry_run:
            _show_plan(services, command, ignored)
            return
        reference, job_ids = _store(services, command, ignored, receipt.stored)
        if ignored:
            click.echo(f"ignored, because they change nothing: {_counts(ignored)}", err=True)
        if command.as_json and not command.wait:
            _print_stored(services, command, reference, ignored)
            receipt.said()
        if command.wait:
            try:
                wait_shown(
                    services,
                    job_ids,
                    timeout=command.timeout,
                    show="json" if command.as_json else "text",
                    err=True,
                )
            except (JobFailed, TimedOut):  # its document has been printed
                receipt.said()
                raise
            if tell is not None:
                tell(services, job_ids)


enqueue = click.Group(
    "enqueue",
    commands=COMMANDS,
    result_callback=submit,
    help="""Submit training and generation jobs. Prints nothing but the job's id.

    \b
    genmill job wait "$(genmill enqueue generate digits --count 1000)"
    """,
)


def _refuse_unusable_judges(command: EnqueueCommand) -> None:
    """Refuse folders of image models that cannot judge; those in a batch are looked at with it."""
    from scheduler.submission.judges import JudgeFolders

    judges = JudgeFolders(loading=True)
    for spec in (command.spec, *command.then):
        if spec is not None:
            judges.refuse_unusable(spec)


def _counts(ignored: Counter[str]) -> str:
    return ", ".join(f"{key} ({count:,})" for key, count in sorted(ignored.items()))


def _store(
    services: "Services", command: EnqueueCommand, ignored: Counter[str], on_stored: "OnStored"
) -> tuple[str, list[str]]:
    """Enqueue the command's jobs; return the job's or the batch's id, and the ids to wait for."""
    from db import batches, chains
    from scheduler.submission.batches import enqueue_batch
    from scheduler.submission.enqueue import enqueue

    priority, key = command.priority, command.idempotency_key
    if command.spec is not None:
        job = enqueue(
            services,
            command.spec,
            then=command.then,
            priority=priority,
            idempotency_key=key,
            on_stored=on_stored,
        )
        _say_expected(services, job)
        with services.database.read() as session:
            then = chains.followers(session, job.id) if command.then else []
        for each in then:
            click.echo(f"then {each.kind}: {each.id}", err=True)
        return job.id, [job.id, *(each.id for each in then)]
    lines = _lines(command)
    with _progress_bar() as show:
        batch = enqueue_batch(
            services,
            lines,
            priority=priority,
            idempotency_key=key,
            ignored=ignored,
            show=show,
            on_stored=on_stored,
        )
    if not command.wait:
        return batch.id, []
    with services.database.read() as session:
        return batch.id, batches.job_ids(session, batch.id)


def _lines(command: EnqueueCommand) -> Iterable[str]:
    from scheduler.submission.batch_lines import read_batch

    return command.lines or read_batch(command.file)


def _say_expected(services: "Services", job: "Job") -> None:
    """Say on stderr what a training can be expected to take."""
    from db.errors import GenmillError
    from scheduler.submission.estimates import expected_of

    with suppress(GenmillError):  # the job is stored, whatever goes wrong here
        found = expected_of(services, job)
        if found is not None:
            time = _training_time(found.total_s, found.outside, found.trainings)
            epochs = f"; {_epochs(found.epochs)} epochs" if found.epochs else ""
            click.echo(f"expected: {time}{epochs}", err=True)
            if found.advice:
                click.echo(f"note: {found.advice}", err=True)


@contextmanager
def _progress_bar() -> Iterator["Show"]:
    """Show how many lines are checked and stored, on a terminal only."""
    from scheduler.submission.spool import show_nothing

    if not sys.stderr.isatty():
        yield show_nothing
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("", total=None)

        def show(what: str, done: int, total: int | None) -> None:
            progress.update(bar, description=f"{done:,} {what}", completed=done, total=total)

        yield show


def _print_stored(
    services: "Services", command: EnqueueCommand, reference: str, ignored: Counter[str]
) -> None:
    from db import batches, jobs
    from scheduler.output.documents import chain_documents, job_documents
    from scheduler.output.render import print_json

    with services.database.read() as session:
        if command.spec is not None:
            [document] = job_documents(session, [jobs.get(session, reference)])
            chain = {"chain": chain_documents(session, reference)} if command.then else {}
            print_json(document | chain)
        else:
            made = batches.jobs_of(session, reference, with_spec=True)
            documents = job_documents(session, made)
            print_json({"batch": reference, "jobs": documents, "ignored": dict(ignored)})


def _show_plan(services: "Services", command: EnqueueCommand, ignored: Counter[str]) -> None:
    from scheduler.output.render import print_fields, print_json, to_size
    from scheduler.submission.estimates import estimate_each

    plans: Iterable[Plan] = estimate_each(
        services, _requests(services, command, ignored), together=command.spec is None
    )
    if command.as_json:
        documents = [asdict(plan) for plan in plans]
        chain = {"chain": documents[1:]} if command.then else {}
        print_json(documents if command.spec is None else documents[0] | chain)
        return
    if command.spec is not None:
        for number, plan in enumerate(plans):
            if number:
                click.echo("\nTHEN")
            size = f"about {to_size(plan.bytes)}" if plan.bytes else None
            cost = {"shards": plan.shards, "time": _time_of(plan), "size": size}
            epochs = {"epochs": _epochs(plan.epochs), "note": plan.advice}
            print_fields({**plan.spec, **cost, **epochs})
        return
    count, shards, seconds = 0, 0, 0.0
    for plan in plans:
        count, shards, seconds = count + 1, shards + plan.shards, seconds + plan.seconds
    cost = {"shards": shards, "time": _worker_time(seconds)}
    print_fields({"jobs": count, **cost, "ignored": _counts(ignored) or None})


def _time_of(plan: "Plan") -> str:
    if plan.spec["kind"] not in {"train", "finetune"}:
        return _worker_time(plan.seconds)
    return _training_time(plan.seconds, plan.outside, plan.trainings)


def _training_time(total_s: float, outside: Mapping[str, float], trainings: int) -> str:
    """How long a training takes, its budget, and what is outside of it."""
    from scheduler.output.render import to_count, to_duration
    from worker.services.estimates import STAGES, describe_stages

    if not trainings:
        rest = f"{', '.join(STAGES)}: how long is not known before the first training"
        return f"{_worker_time(total_s)} in the budget, and more outside of it ({rest})"
    outside_s = sum(outside.values())
    budget = f"{to_duration(total_s - outside_s)} in the budget"
    rest = f"{to_duration(outside_s)} outside of it ({describe_stages(outside)})"
    told = f"as {to_count(trainings, 'earlier training')} took"
    return f"{_worker_time(total_s)}: {budget} and {rest}, {told}"


def _epochs(epochs: float | None) -> str:
    return "" if epochs is None else f"about {epochs:.2g}"


def _worker_time(seconds: float) -> str:
    from scheduler.output.render import to_duration

    return f"about {to_duration(seconds)} of one worker"


def _requests(
    services: "Services", command: EnqueueCommand, ignored: Counter[str]
) -> Iterable["Request | Unchecked"]:
    from scheduler.submission.batch_lines import check_batch
    from scheduler.submission.enqueue import prepare, prepare_then
    from scheduler.submission.judges import JudgeFolders

    if command.spec is not None:
        first = prepare(services, command.spec, priority=command.priority)
        return [first, *prepare_then(services, first, command.then)]
    judges = JudgeFolders(loading=True)
    lines = _lines(command)
    return check_batch(services, lines, ignored=ignored, judges=judges, priority=command.priority)
