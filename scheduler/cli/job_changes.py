"""`genmill job cancel`, `priority` and `note`: changes to jobs that are under way."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import click

from scheduler.cli.options import as_json
from scheduler.cli.record import open_record

if TYPE_CHECKING:
    from db.interventions import Answer
    from db.tables import Job
    from worker.services import Services

Groups = Mapping[str, Sequence["Job"]]  # the jobs that each reference names

CHANGED_AT_ONCE = 100  # jobs


@click.command("cancel")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@click.option(
    "--keep",
    is_flag=True,
    help="Of trainings: end now, and make a version of the best weights so far.",
)
@as_json
def cancel(ids: tuple[str, ...], keep: bool, as_json: bool) -> None:
    """Cancel jobs or batches, and the jobs that wait for them.

    Committed samples are kept; a job that has ended stays as it is. Prints the ids of what was
    cancelled. With --keep, a training succeeds with a version of its best weights, whose metrics
    say `ended_early`, and the jobs that wait for it run. One without a step to keep is cancelled.
    A cancelled training leaves a checkpoint, from which `job retry` goes on.

    \b
    genmill job cancel 0199c0de 0199c0df
    genmill job cancel 0199c0de --keep && genmill job wait 0199c0de
    """
    from scheduler.results.waiting import find_groups

    with open_record() as services:
        with services.database.read() as session:
            groups = find_groups(session, ids)
        if keep:
            _end_early(services, groups, as_json=as_json)
        else:
            _cancel(services, groups, as_json=as_json)


def _cancel(services: "Services", groups: Groups, *, as_json: bool) -> None:
    from db import jobs
    from db.states import JobState
    from scheduler.output.render import print_json

    found = _each_job(groups)
    cancelled = {
        each.id: services.database.transact(partial(jobs.cancel, job_id=each.id)) for each in found
    }
    with services.database.read() as session:  # some went with the one that they waited for
        went = {each.id for each in found if each.status == JobState.WAITING}
        cancelled |= {
            job_id: jobs.get(session, job_id).status == JobState.CANCELLED for job_id in went
        }
    if as_json:
        print_json([{"id": key, "cancelled": done} for key, done in cancelled.items()])
        return
    for key, group in groups.items():
        _say(key, [cancelled[each.id] for each in group])


def _end_early(services: "Services", groups: Groups, *, as_json: bool) -> None:
    from db.interventions import Answer, end_early, refuse_to_keep
    from scheduler.output.render import print_json

    found = _each_job(groups)
    for each in found:  # before the first is told
        refuse_to_keep(each.id, each.kind)
    answers = {
        each.id: services.database.transact(partial(end_early, job_id=each.id)) for each in found
    }
    if as_json:
        print_json(
            [
                {
                    "id": key,
                    "cancelled": answer is Answer.CANCELLED,
                    "ends_early": answer is Answer.ASKED,
                }
                for key, answer in answers.items()
            ]
        )
        return
    for key, group in groups.items():
        _say(key, [answers[each.id] is not Answer.ENDED for each in group])
    for job_id, answer in answers.items():
        _explain(job_id, answer)


def _explain(job_id: str, answer: "Answer") -> None:
    told = {
        "asked": "ends now; its best weights become a version (`genmill job wait` waits for it)",
        "cancelled": "had not begun: it is cancelled, and there was nothing to keep",
    }
    if answer in told:
        click.echo(f"{job_id} {told[answer]}", err=True)


@click.command("priority", context_settings={"ignore_unknown_options": True})
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@click.argument("priority", type=int, metavar="N")
@as_json
def set_priority(ids: tuple[str, ...], priority: int, as_json: bool) -> None:
    """Give jobs or batches, and the jobs that wait for them, the priority N.

    What is queued is chosen by it from now on, the highest first; what runs goes on. By default it
    is 0. A job that has ended stays as it is. Prints the ids of what was changed.

    \b
    genmill job priority 0199c0de 10
    genmill job priority 0199c0df 0199c0e0 -5
    """
    from db.interventions import check_priority
    from scheduler.output.render import print_json
    from scheduler.results.waiting import find_groups

    check_priority(priority)
    with open_record() as services:
        with services.database.read() as session:
            groups = find_groups(session, ids)
        found = [each.id for each in _each_job(groups)]
        changed = dict.fromkeys(_prioritise(services, found, priority))
    if as_json:
        every = dict.fromkeys([*found, *changed])
        print_json([{"id": key, "priority": priority, "changed": key in changed} for key in every])
        return
    for key, group in groups.items():
        _say(key, [each.id in changed for each in group])


def _prioritise(services: "Services", job_ids: Sequence[str], priority: int) -> Iterator[str]:
    """Change jobs, some in each transaction; yield those that had not ended."""
    from db.interventions import prioritise

    for first in range(0, len(job_ids), CHANGED_AT_ONCE):
        some = job_ids[first : first + CHANGED_AT_ONCE]
        change = partial(prioritise, job_ids=some, priority=priority)
        yield from services.database.transact(change)


@click.command("note")
@click.argument("id")
@click.argument("text")
@as_json
def note(id: str, text: str, as_json: bool) -> None:
    """Note TEXT on a job, in place of its note; an empty TEXT removes it. Prints the job's id.

    \b
    genmill job note 0199c0de "for the talk in May: do not delete"
    """
    from db import jobs
    from db.interventions import annotate
    from scheduler.output.render import print_json
    from scheduler.results.waiting import find_job

    with open_record() as services:
        with services.database.read() as session:
            job_id = find_job(session, id).id
        services.database.transact(partial(annotate, job_id=job_id, note=text))
        with services.database.read() as session:
            noted = jobs.get(session, job_id).note
    print_json({"id": job_id, "note": noted}) if as_json else click.echo(job_id)


def _each_job(groups: Groups) -> list["Job"]:
    return list({job.id: job for group in groups.values() for job in group}.values())


def _say(reference: str, changed: Sequence[bool]) -> None:
    """Print a job's or a batch's id if any job was changed, and how many had ended before."""
    if any(changed):
        click.echo(reference)
    ended = changed.count(False)
    if ended and len(changed) == 1:
        click.echo(f"{reference} has already ended", err=True)
    elif ended:
        click.echo(f"{ended} of {len(changed)} jobs of {reference} have already ended", err=True)
