"""Estimates from past jobs, and how wrong they were."""

import pytest

from db.past_jobs import PastGeneration, PastTraining
from worker.families import families, find_family
from worker.services.estimates import (
    Budget,
    advice_on,
    describe_stages,
    misjudged_generations,
    misjudged_trainings,
    of_generation,
    of_training,
)

KEY, ROWS = 7, 64
LOADING_S, RATE = 2.0, 100.0
PARAMS = {"lr": 0.1}


def made(samples: int, *, key: int = KEY, size: int = 500, fixed_s: float = LOADING_S):
    rows = -(-samples // ROWS) * ROWS
    return PastGeneration("j", key, ROWS, samples, fixed_s + rows / RATE, size * samples)


def estimate(past, count: int, rate: float | None = 50.0, key: int = KEY):
    return of_generation(past, work_key=key, micro_batch=ROWS, count=count, rate=rate)


def test_one_sample_made_again_spoils_neither_time_nor_size() -> None:
    past = [made(1, size=75_000), made(6400), made(3200)]
    found = estimate(past, 6400)
    assert found.seconds == pytest.approx(66, rel=0.05)
    assert found.size_bytes == pytest.approx(6400 * 500, rel=0.02)


def test_a_short_job_takes_its_fixed_cost() -> None:
    past = [made(1), made(1), made(6400)]
    assert estimate(past, 1).seconds == pytest.approx(2.6, abs=0.2)


def test_small_jobs_alone_tell_the_fixed_cost_but_not_the_rate() -> None:
    assert estimate([made(1)], 5000).seconds == pytest.approx(5056 / 50 + 1.36, abs=0.1)
    assert estimate([made(1)], 5000, rate=None).seconds is None


def test_without_a_job_the_rate_tells_the_time_and_nothing_the_size() -> None:
    assert estimate([], 100) == (estimate([], 100).__class__)(2.0, None)


def test_other_settings_tell_the_size_where_nothing_else_does_and_never_the_time() -> None:
    found = estimate([made(6400, key=8)], 100, rate=10.0)
    assert (found.seconds, found.size_bytes) == (10.0, 50_000)


def trained(seconds: float = 10.0, **given):
    metrics = {"steps": 1000, "seconds": seconds, "epochs": 5.0}
    metrics["stage_seconds"] = {"loading": 2.0, "validating": 12.0, "storing": 1.0}
    known = {"dataset_id": "d", "data_bytes": 100, "params": PARAMS, "tuned": False}
    known |= {"metrics": metrics, "seconds": seconds + 15.0, "job_id": "j", "family": "gan"} | given
    return PastTraining(**known)


def expect(past, *, max_steps=None, max_seconds=None, data_bytes=100, params=PARAMS, tuned=False):
    return of_training(
        past, Budget(max_steps, max_seconds, 180.0),
        dataset_id="d", data_bytes=data_bytes, params=params, tuned=tuned,
    )  # fmt: skip


def test_a_budget_of_ten_seconds_is_expected_to_take_what_others_took_outside_it() -> None:
    found = expect([trained()], max_seconds=10)
    assert (found.seconds, found.outside_s, found.total_s) == (10, 15, 25)
    assert found.stages == "loading 2.0 s, validating 12 s, storing 1.0 s"
    assert found.epochs == pytest.approx(5)


def test_steps_take_as_long_as_they_took() -> None:
    assert expect([trained()], max_steps=500).seconds == pytest.approx(5)
    assert expect([trained()], max_steps=500, max_seconds=2).seconds == 2
    assert expect([], max_steps=500).seconds == 180


def test_a_budget_that_is_too_short_is_warned_of() -> None:
    gan = find_family("gan")
    found = expect([trained()], max_seconds=1)
    assert found.epochs == pytest.approx(0.5)
    assert advice_on(gan, found) == (
        "the budget holds about 100 steps, 0.5 epochs; gan needs about 200 steps and an epoch at "
        "least: expect rough samples, or noise. An epoch takes about 2 s of training here"
    )
    assert advice_on(gan, expect([trained()], max_seconds=3)) is None
    assert advice_on(gan, expect([], max_seconds=1)) is None  # nothing is known
    assert advice_on(gan, expect([], max_steps=200)) is None
    assert advice_on(gan, expect([], max_steps=3)) == (
        "the budget holds about 3 steps; gan needs about 200 steps and an epoch at least: "
        "expect rough samples, or noise"
    )


@pytest.mark.parametrize("name", families())
def test_a_training_is_short_by_one_rule_for_every_family(name) -> None:
    family = find_family(name)
    few = family.few_steps
    assert family.is_short(few - 1, epochs=100)
    assert not family.is_short(few, epochs=1)
    assert not family.is_short(few, epochs=None)
    assert family.is_short(few, epochs=0.9)
    assert not family.is_short(10 * few, epochs=0.1)  # of very large data


def test_a_dataset_that_has_grown_has_longer_epochs() -> None:
    assert expect([trained()], max_seconds=10, data_bytes=200).epochs == pytest.approx(2.5)


def test_other_parameters_tell_what_is_outside_and_not_the_speed() -> None:
    found = expect([trained()], max_seconds=10, params={"lr": 1})
    assert (found.outside_s, found.epochs, found.trainings) == (15, None, 1)


def test_trainings_of_an_earlier_version_tell_nothing() -> None:
    old = trained(metrics={"steps": 10, "seconds": 1.0})
    assert expect([old], max_seconds=10).trainings == 0


def test_errors_are_those_of_estimates_from_earlier_jobs_alone() -> None:
    past = [made(6400), made(6400, size=1000), made(6400)]
    time, size = misjudged_generations([past])
    assert (time.what, time.jobs, round(time.factor, 2)) == ("time to generate", 2, 1.0)
    assert (size.jobs, round(size.factor, 2)) == (2, 1.73)  # of 1.5 and 2
    [training] = misjudged_trainings([trained(), trained(seconds=20.0)])
    assert (training.jobs, round(training.factor, 2)) == (1, 1.0)
    assert misjudged_generations([[made(5)]]) == []


def test_stages_that_take_no_time_are_not_told() -> None:
    assert describe_stages({"loading": 0.01, "storing": 0.44, "validating": 61.2}) == (
        "storing 0.4 s, validating 61 s"
    )
