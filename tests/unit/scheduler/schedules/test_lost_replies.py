"""A command or a scheduler whose COMMIT is not answered does its work once, and tells of it."""

from collections.abc import Iterator

import pytest

from db import jobs
from db.session import Database
from scheduler.schedules.manage import trigger_schedule
from scheduler.submission.enqueue import enqueue
from tests.cut_commits import Proxy, proxy_to
from tests.shards import add_job, claim, commit
from worker.services.finalize import finalize_due
from worker.specs import parse_spec

MOST_COMMITS = 4  # of one of these steps


@pytest.fixture
def proxy(postgresql_database_url: str) -> Iterator[Proxy]:
    with proxy_to(postgresql_database_url) as made:
        yield made


@pytest.fixture
def clockwork(clockwork_on, proxy):
    database = Database(proxy.url)
    yield clockwork_on(database)
    database.dispose()


def fire(clockwork, number):
    schedule = clockwork.add(f"s{number}")
    clockwork.make_due(schedule)

    def run():
        assert clockwork.fire() == 1
        (job,) = clockwork.jobs(schedule)
        (run,) = clockwork.runs(schedule)
        assert (run.outcome, run.job_id) == ("fired", job.id)

    return run


def trigger(clockwork, number):
    schedule = clockwork.add(f"s{number}")

    def run():
        told = trigger_schedule(clockwork.services, f"s{number}")
        assert [job.id for job in told] == [job.id for job in clockwork.jobs(schedule)]

    return run


def submit(clockwork, number):
    before = len(clockwork.run(jobs.listing))

    def run():
        spec = {"kind": "generate", "model": "prose", "count": 2, "seed": number}
        told = enqueue(clockwork.services, parse_spec(spec))
        assert clockwork.run(jobs.get, told.id).status == "queued"
        assert len(clockwork.run(jobs.listing)) == before + 1

    return run


def finalize(clockwork, number):
    held = claim(clockwork.services, add_job(clockwork.services))
    commit(clockwork.services, held)

    def run():
        assert finalize_due(clockwork.services) == 1
        assert clockwork.run(jobs.get, held.job_id).status == "succeeded"

    return run


@pytest.mark.parametrize("step", [fire, trigger, submit, finalize], ids=lambda step: step.__name__)
@pytest.mark.parametrize("how", ["reply", "commit"])
def test_each_commit_of_a_step_may_lose_its_reply(clockwork, proxy, step, how) -> None:
    for number in range(MOST_COMMITS):
        run, cuts = step(clockwork, number), proxy.cuts
        proxy.cut(how, spared=number)
        run()
        proxy.cut("")
        if proxy.cuts == cuts:  # all of its commits have had their turn
            break
    assert proxy.cuts
