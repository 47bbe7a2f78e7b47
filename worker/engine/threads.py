"""How many CPU threads a network's arithmetic uses, chosen by measuring its steps.

On an idle machine more threads are faster. Beside other work they are much slower, because every
operation waits until its last thread has had its turn. So a few steps are measured with each
number at the start, and again now and then. Samples do not depend on the number, trained weights
do, to rounding.
"""

import os
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager

import torch

TRIAL_STEPS, TRIAL_S = 4, 0.1  # measured with each number, at least
EVERY_S = 30.0  # between two measurements
SHARE = 0.01  # of the time that measurements may cost
FASTER = 0.95  # of the time that the present number takes: less is worth a change
SLOWER = 1.5  # times what was measured: measure again

Plan = Generator[int, float, None]  # yields the threads of a step, is sent its seconds

_most = 1


def choose_up_to(most: int) -> None:
    """Let later `ThreadChoice`s of this process choose among 1 to `most` threads."""
    global _most  # noqa: PLW0603 - torch's number of threads is the process's, too
    _most = most


def most() -> int:
    """The most threads that work of this process should use."""
    return _most


def crowded() -> bool:
    """Whether a second task that computes would need more cores than there are."""
    return 2 * torch.get_num_threads() > len(os.sched_getaffinity(0))


class ThreadChoice:
    """Sets the number of threads before each step of one piece of work.

    `most` is the limit, by default that of `choose_up_to`; with 1, nothing is set or measured.
    """

    def __init__(
        self,
        most: int | None = None,
        *,
        use: Callable[[int], None] = torch.set_num_threads,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._numbers = _numbers(_most if most is None else most)
        self._use, self._clock = use, clock
        self._plan = self._measure_and_keep()
        self.number = 0  # in use; 0: as it was
        self.chosen = torch.get_num_threads()  # by the last measurement

    @contextmanager
    def step(self, *, measured: bool = True) -> Iterator[None]:
        """Run one step in the `with` block; if not `measured`, other work disturbs its time."""
        if len(self._numbers) == 1:
            yield
            return
        if not self.number:
            self._set(next(self._plan))
        began = self._clock()
        yield
        if measured:
            self._set(self._plan.send(self._clock() - began))

    def _set(self, number: int) -> None:
        if number != self.number:
            self._use(number)
            self.number = number

    def _measure_and_keep(self) -> Plan:
        place = len(self._numbers) - 1
        numbers: Sequence[int] = self._numbers
        while True:
            means, cost_s = yield from self._measure(numbers)
            best = min(numbers, key=lambda number: means[number])
            present = self._numbers[place]
            if means[best] < FASTER * means[present] or present not in numbers:
                place = self._numbers.index(best)
            pause_s = max(EVERY_S, cost_s / SHARE)
            self.chosen = self._numbers[place]
            yield from self._keep(self.chosen, means[self.chosen], pause_s)
            numbers = self._numbers[max(place - 1, 0) : place + 2]

    def _measure(
        self, numbers: Sequence[int]
    ) -> Generator[int, float, tuple[dict[int, float], float]]:
        """The mean seconds of a step with each number, and the seconds lost by measuring."""
        means, spent_s, count = dict[int, float](), 0.0, 0
        for number in numbers:
            first_s = yield number  # starts its threads
            spent_s += first_s
            if means and first_s > max(TRIAL_STEPS * min(means.values()), TRIAL_S):
                means[number], count = first_s, count + 1  # much slower: one step is enough
                continue
            steps, total_s = 0, 0.0
            while total_s < TRIAL_S or steps % TRIAL_STEPS or not steps:
                total_s += yield number
                steps += 1
                if means and total_s > max(TRIAL_STEPS * min(means.values()), TRIAL_S):
                    break  # it is slower already
            means[number] = total_s / steps
            spent_s, count = spent_s + total_s, count + steps + 1
        return means, spent_s - count * min(means.values())

    def _keep(self, number: int, mean_s: float, pause_s: float) -> Plan:
        """Use `number` for `pause_s`, or until steps take much longer for as long as a trial."""
        began = self._clock()
        steps, total_s = 0, 0.0
        while (past_s := self._clock() - began) < pause_s:
            total_s += yield number
            steps += 1
            if total_s >= TRIAL_S and steps >= TRIAL_STEPS:
                if total_s > SLOWER * steps * mean_s and past_s > pause_s / 6:
                    return
                steps, total_s = 0, 0.0


def _numbers(most: int) -> list[int]:
    """1, 2, 4 and so on, and `most`."""
    powers = [2**n for n in range(most.bit_length()) if 2**n < most]
    return [*powers, most]
