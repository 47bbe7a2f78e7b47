"""The simulated broker: a queue of doorbells that loses, doubles and delays them as it is told.

`SimulatedApp` stands in for the Celery app that `worker.broker.doorbell` sends through.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING

from kombu.exceptions import OperationalError

if TYPE_CHECKING:
    from tests.simulation.world import World

STRANGE = "not a shard's id"


class SimulatedBroker:
    """The queue of one simulation. A message that was taken and not acknowledged is gone."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._messages: list[tuple[float, str]] = []  # when they arrive, and a shard's id
        self._taken: deque[str] = deque(maxlen=5)  # the last ones, which a replica may still have

    def __len__(self) -> int:
        now = self._world.machine.now
        return sum(arrives <= now for arrives, _ in self._messages)

    def send(self, shard_id: str) -> None:
        """Send a doorbell."""
        world = self._world
        fate = world.one_of("message_lost", "message_doubled", "message_late")
        copies = {"message_lost": 0, "message_doubled": 2}.get(fate or "", 1)
        arrives = world.machine.now
        if fate == "message_late":
            arrives += world.machine.random.expovariate(1 / 60)
        self._messages += [(arrives, shard_id)] * copies

    def take(self, seconds: float) -> str | None:
        """The next doorbell; None if there is none for so long."""
        world = self._world
        if not self._messages and seconds <= 0:
            return None
        world.machine.wait(seconds, lambda: len(self) and not world.broker_is_away)
        if world.broker_is_away or not len(self):
            return None
        place = next(n for n, each in enumerate(self._messages) if each[0] <= world.machine.now)
        self._taken.append(self._messages.pop(place)[1])
        return self._taken[-1]

    def wipe(self) -> None:
        """Forget every message."""
        self._messages.clear()

    def fail_over(self) -> None:
        """Let a replica take its place, which lacks some messages and still has some taken ones."""
        random, now = self._world.machine.random, self._world.machine.now
        kept = [each for each in self._messages if random.random() < 0.5]
        self._messages = kept + [(now, each) for each in self._taken if random.random() < 0.5]


class SimulatedApp:
    """What rings doorbells uses of Celery and kombu."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.connection = self.default_channel = self

    @contextmanager
    def producer_or_acquire(self) -> Iterator["SimulatedApp"]:
        yield self

    def ensure_connection(self, **_: object) -> None:
        self._reach()

    def queue_declare(self, _queue: str) -> SimpleNamespace:
        self._reach()
        return SimpleNamespace(message_count=len(self._world.broker))

    def send_task(self, _task: str, args: list[str], **_: object) -> None:
        self._reach()
        self._world.broker.send(args[0])

    def _reach(self) -> None:
        self._world.latency()
        if self._world.broker_is_away:
            raise OperationalError("the broker does not answer")
