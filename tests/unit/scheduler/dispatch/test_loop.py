"""The scheduler's loop: signs of life, and nothing that ends it."""

import threading

from scheduler.dispatch import loop
from scheduler.dispatch.loop import run_scheduler


def test_the_loop_leaves_a_sign_of_life_while_it_runs(services, monkeypatch) -> None:
    stop, seen = threading.Event(), []

    def round_that_ends_it(*_):
        seen.append(services.settings.scheduler_file.exists())
        stop.set()

    monkeypatch.setattr(loop, "run_round", round_that_ends_it)
    run_scheduler(services.settings, stop)
    assert seen == [True]
    assert not services.settings.scheduler_file.exists()


def test_garbage_that_cannot_be_collected_does_not_end_the_loop(services, monkeypatch) -> None:
    stop, failures = threading.Event(), []

    def broken(_):
        failures.append(1)
        raise OSError("the disk is away")

    monkeypatch.setattr(loop, "collect_datasets", broken)
    monkeypatch.setattr(loop, "run_round", lambda *_: failures and stop.set())
    run_scheduler(services.settings.model_copy(update={"loop_s": 0.01}), stop)
    assert failures == [1]
