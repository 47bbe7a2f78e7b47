"""`job logs`: the last lines, those of a time span, and new ones until the job ends."""

import threading
from datetime import timedelta

import pytest
from sqlalchemy import update

from db import jobs
from db.session import clock
from db.tables import LogLine


@pytest.fixture
def logged(genmill, services, digits) -> str:
    """A job with three lines, the first of them two hours old."""
    job_id = genmill("enqueue", "generate", digits, "--count", "4").out.strip()
    for place in range(3):
        write(services, job_id, f"line {place}")
    with services.database.write() as session:
        earlier = clock(session) - timedelta(hours=2)
        session.execute(update(LogLine).where(LogLine.message == "line 0").values(at=earlier))
    return job_id


def write(services, job_id: str, text: str) -> None:
    services.database.transact(lambda session: jobs.log(session, job_id, text))


def messages(result) -> list[str]:
    return [line.split(maxsplit=2)[2] for line in result.out.splitlines()]


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ([], [0, 1, 2]),
        (["--tail", "2"], [1, 2]),
        (["--tail", "0"], []),
        (["--tail", "9"], [0, 1, 2]),
        (["--since", "1h"], [1, 2]),
        (["--since", "1d", "--tail", "1"], [2]),
    ],
)
def test_lines_are_chosen(genmill, logged, options, shown) -> None:
    found = genmill("job", "logs", logged, *options)
    assert (found.code, messages(found)) == (0, [f"line {place}" for place in shown])


def test_new_lines_follow_until_the_job_ends(genmill, services, logged) -> None:
    def later() -> None:
        write(services, logged, "line 3")
        services.database.transact(lambda session: jobs.cancel(session, logged))

    timer = threading.Timer(0.2, later)
    timer.start()
    found = genmill("job", "logs", logged, "--follow", "--tail", "1")
    timer.join()
    assert messages(found) == ["line 2", "line 3"]
    assert found.err == f"job {logged} cancelled\n"


def test_one_that_has_ended_is_not_waited_for(genmill, services, logged) -> None:
    services.database.transact(lambda session: jobs.cancel(session, logged))
    found = genmill("job", "logs", logged, "-f", "--json")
    assert [line.count("message") for line in found.out.splitlines()] == [1, 1, 1]


@pytest.mark.parametrize("options", [["--tail", "-1"], ["--tail", "x"], ["--since", "soon"]])
def test_wrong_numbers_are_refused(genmill, logged, options) -> None:
    assert genmill("job", "logs", logged, *options).code == 2
