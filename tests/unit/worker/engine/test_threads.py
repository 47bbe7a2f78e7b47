from collections.abc import Callable

import pytest

from worker.engine.threads import EVERY_S, ThreadChoice


class Machine:
    """A clock, and steps that take as long as `seconds` says for the threads in use."""

    def __init__(self, most: int, seconds: Callable[[int], float]) -> None:
        self.now, self.seconds = 0.0, seconds
        self.used: list[int] = []
        self.choice = ThreadChoice(most, use=self.used.append, clock=lambda: self.now)

    def run(self, steps: int) -> list[int]:
        """The threads of each step."""
        taken = []
        for _ in range(steps):
            with self.choice.step():
                taken.append(self.used[-1] if self.used else 0)
                self.now += self.seconds(taken[-1])
        return taken


def idle(threads: int) -> float:
    return 0.1 / threads


def busy(threads: int) -> float:
    return 0.2 * threads**2


def test_more_threads_are_used_where_they_are_faster() -> None:
    machine = Machine(4, idle)
    assert machine.run(200)[-1] == 4
    assert set(machine.used) == {1, 2, 4}


def test_one_thread_is_used_beside_other_work() -> None:
    assert Machine(2, busy).run(40)[-1] == 1


def test_number_that_is_much_slower_is_tried_once() -> None:
    assert Machine(2, lambda threads: 0.2 * threads**4).run(40).count(2) == 1


def test_number_that_is_hardly_faster_is_not_worth_a_change() -> None:
    assert Machine(2, lambda threads: 0.099 if threads == 1 else 0.1).run(40)[-1] == 2


def test_work_that_begins_later_is_noticed_and_so_is_its_end() -> None:
    machine = Machine(2, idle)
    assert machine.run(200)[-1] == 2
    machine.seconds = busy
    assert machine.run(200)[-1] == 1
    machine.seconds = idle
    machine.run(round(100 * EVERY_S / idle(1)))
    assert machine.run(1) == [2]


@pytest.mark.parametrize("seconds", [idle, busy, lambda threads: 0.01 * threads**3])
def test_measuring_costs_little(seconds: Callable[[int], float]) -> None:
    machine = Machine(2, seconds)
    machine.run(60)  # the first choice
    began = machine.now
    steps = machine.run(round(1000 / seconds(1)))
    best = min(seconds(1), seconds(2))
    assert machine.now - began <= 1.02 * best * len(steps)


def test_where_only_one_thread_is_allowed_nothing_is_set() -> None:
    machine = Machine(1, busy)
    machine.run(10)
    assert not machine.used


def test_disturbed_steps_are_not_measured() -> None:
    machine = Machine(2, idle)
    for _ in range(100):
        with machine.choice.step(measured=False):
            pass
    assert machine.used == [1]
