"""Every part of the system dies, freezes or fails at every failpoint; another finishes the work."""

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping

import pytest
import redis

from db.states import FINAL
from tests.chaos.scenarios import NAMED, SCENARIOS, Scenario, scheduler, start, work_through
from tests.chaos.struck import PATIENCE_S, Struck
from tests.chaos.trial import FOLDER, GRACE_S, SERVERS, Trial
from tests.forked import changed

LEASE_S, LOOP_S, DEADLINE_S = 1.0, 0.2, 0.5
BOUND_S = LEASE_S + LOOP_S + 2 * DEADLINE_S + 10  # for the work itself, on a busy machine

ERRORS = ("refused", "unreachable", "memory", "unknown", "panic", "oserror:ENOSPC")
ACTIONS = ("sigkill", "stop", *ERRORS)
# a job may end as failed where its own work was refused, and a due time is recorded as failed
FINAL_AT_ONCE = "refused"
JOBS_IN_ALL = {"enqueueing": 1, "a batch": 5, "firing": 1}
REFUSED_RUN = ("firing", "schedule_prepared", FINAL_AT_ONCE)
QUICK = [  # in the ordinary suite
    ("generating", "put_after", "stop"),
]
CASES = [
    (scenario.name, point, action)
    for scenario in SCENARIOS
    for point in scenario.points
    for action in ACTIONS
]


Strike = Callable[..., Struck]
TIMES = {"lease_s": LEASE_S, "loop_s": LOOP_S, "deadline_s": DEADLINE_S, "failpoint": ""}


@pytest.fixture
def strike() -> Iterator[Strike]:
    """Starts the part of a scenario that a failpoint strikes; nothing of it is left at the end."""
    struck: list[Struck] = []

    def act(made: Trial, scenario: Scenario, point: str, action: str, *, nth: int = 1) -> Struck:
        scenario.prepare(made)
        struck.append(Struck(made, scenario, point, action, nth))
        return struck[-1]

    yield act
    for each in struck:
        each.kill()


def all_final(made: Trial, *, at_least: int) -> bool:
    found = made.everything()
    return len(found) >= at_least and all(job.status in FINAL for job in found)


def start_again(made: Trial, struck: Struck) -> None:
    """Run `genmill up` in a home where another has ended, or is frozen: then that one goes on."""
    settings = changed(made.settings, redis_url=None)
    first = made.generate(2)
    again = start(struck.scenario.part, settings, "", os.environ)
    if struck.process.is_alive():
        again.join(PATIENCE_S)
        assert again.exitcode == 2
        assert f"already runs in {settings.home} (pid {struck.process.pid})" in part_log(made)
        os.killpg(struck.process.pid, signal.SIGCONT)
        again = struck.process
    try:
        made.until("its end", lambda: made.job(first.id).status in FINAL)
    finally:
        os.killpg(again.pid, signal.SIGTERM)
        again.join(PATIENCE_S)


def part_log(made: Trial) -> str:
    return (made.settings.home / "part.log").read_text()


def recover(made: Trial, struck: Struck, *, jobs: int = 0) -> None:
    """Let healthy processes do what the struck one was to do, until so many jobs have ended."""
    scenario = struck.scenario
    if scenario.name == "starting":
        start_again(made, struck)
    elif scenario.repeated:
        again = start(scenario.part, made.settings, "", os.environ)
        again.join(PATIENCE_S)
        assert again.exitcode == 0, part_log(made)
    deadline = time.monotonic() + GRACE_S
    work_through(
        made,
        lambda: all_final(made, at_least=jobs) or time.monotonic() > deadline,
    )
    made.row.recovered()
    made.expect(*[job.id for job in made.everything()])


def run_case(made: Trial, strike: Strike, name: str, point: str, action: str) -> None:
    scenario = NAMED[name]
    struck = strike(made, scenario, point, action)
    assert struck.acted, f"{point} was not reached"
    jobs = 0 if (name, point, action) == REFUSED_RUN else JOBS_IN_ALL.get(name)
    recover(made, struck, jobs=jobs or 0)
    allowed = {"succeeded", "failed"} if action == FINAL_AT_ONCE else {"succeeded"}
    made.check(ends=allowed)
    if action == "stop" and struck.process.is_alive():
        struck.wake()
        made.check(ends=allowed)
    if jobs is not None:
        assert len(made.everything()) == jobs
    if scenario.part is scheduler and action in ERRORS and action != "panic":
        assert struck.process.exitcode == 0, f"the scheduler ended\n{part_log(made)}"


@pytest.mark.parametrize("case", QUICK, ids="-".join)
@pytest.mark.parametrize("places", [FOLDER], indirect=True)
def test_what_a_part_leaves_at_a_failpoint_is_finished(trial, places, strike, case) -> None:
    run_case(make(trial, places, case[2]), strike, *case)


@pytest.mark.chaos
@pytest.mark.timeout(180)
@pytest.mark.parametrize("case", [case for case in CASES if case not in QUICK], ids="-".join)
@pytest.mark.parametrize("places", [FOLDER], indirect=True)
def test_what_a_part_leaves_at_any_failpoint_is_finished(trial, places, strike, case) -> None:
    run_case(make(trial, places, case[2]), strike, *case)


@pytest.mark.chaos
@pytest.mark.timeout(180)
@pytest.mark.parametrize("action", ["sigkill", "stop", "unreachable", "unknown"])
@pytest.mark.parametrize("point", NAMED["generating"].points)
@pytest.mark.parametrize("places", [SERVERS], indirect=True)
def test_the_same_holds_for_a_worker_on_servers(trial, places, strike, point, action) -> None:
    run_case(make(trial, places, action), strike, "generating", point, action)


@pytest.mark.chaos
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("point", "action"),
    [
        ("record_write", "sigkill"),
        ("record_written", "sigkill"),
        ("record_written", "unreachable"),  # the reply to COMMIT is lost
        ("store_written", "sigkill"),
    ],
)
@pytest.mark.parametrize("name", ["generating", "training", "firing", "a batch", "adding data"])
def test_any_write_of_a_part_may_be_its_last(
    trial, strike, sqlite_template, tmp_path, broker_url, name, point, action
) -> None:
    """Strike at the first write, then at the second, until there is none left to strike at."""
    scenario, nth = NAMED[name], 0
    if point not in scenario.points:
        pytest.skip(f"{name} stores nothing")
    acted = True
    while acted:
        nth += 1
        redis.Redis.from_url(broker_url).flushall()
        home = tmp_path / str(nth)
        home.mkdir()
        shutil.copy(sqlite_template, home / "genmill.db")
        places = {
            "home": home,
            "database_url": f"sqlite:///{home / 'genmill.db'}",
            "store_url": (home / "store").as_uri(),
        }
        made = make(trial, places, f"{action} after any {point.partition('_')[0]}")
        struck = strike(made, scenario, point, action, nth=nth)
        acted = struck.acted
        recover(made, struck, jobs=JOBS_IN_ALL.get(name, 0))
        made.check()
        made.stop()
    assert nth > 1


def make(trial: Callable[..., Trial], places: Mapping[str, object], what: str) -> Trial:
    return trial(f"{what} at a failpoint", places, bound_s=BOUND_S, **TIMES)
