"""The faults of a world: how likely each is by itself, and those that somebody brings about."""

from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

from db.columns import hyphenated
from tests.simulation.threads import Process

if TYPE_CHECKING:
    from tests.simulation.world import World

# by name, how likely at most each time that it could happen
AT_MOST = {
    "busy": 0.1,
    "commit_lost": 0.1,
    "commit_unheard": 0.15,
    "died_before": 0.05,
    "died_after": 0.05,
    "store_refuses": 0.1,
    "store_unheard": 0.1,
    "message_lost": 0.5,
    "message_doubled": 0.5,
    "message_late": 0.3,
    "work_fails": 0.4,
    "work_is_refused": 0.05,
    "process_panics": 0.2,
    "differs": 0.5,
    "cancel": 0.5,
    "retry": 0.5,
    "keep": 0.5,
}
CLOCKS_AHEAD_S = (0, 0, 5, 90)
PAUSE_S = 20.0  # between two faults that are brought about, on average


def choose_rates(random: Random) -> dict[str, float]:
    """A world has some of the faults, each at a rate of its own."""
    return {name: random.random() * most for name, most in AT_MOST.items() if random.random() < 0.4}


class Faults:
    """Brings faults about until the world is calm."""

    def __init__(self, world: "World") -> None:
        self._world = world
        kinds = [
            *(self._kill, self._kill, self._freeze, self._freeze, self._freeze),
            *(self._freeze, self._drain, self._wipe),
            *(self._ring_again, self._lose_power),
            *(self._take_away_database, self._take_away_store, self._take_away_broker),
            *(self._fail_over_database, self._fail_over_broker, self._spoil_checkpoint),
        ]
        random = world.machine.random
        self._kinds = random.sample(kinds, random.randint(1, 5))
        self._pause_s = PAUSE_S * random.choice([0.5, 1, 3])

    def begin(self) -> None:
        """Bring them about, one after another."""
        machine = self._world.machine
        machine.later(machine.random.expovariate(1 / self._pause_s), self._strike)

    def _strike(self) -> None:
        if not self._world.calm:
            self._world.machine.random.choice(self._kinds)()
            self.begin()

    def _some_process(self) -> Process | None:
        kept = self._world.kept
        return self._world.machine.random.choice(kept) if kept else None

    def _kill(self) -> None:
        if process := self._some_process():
            self._world.say(f"kills {process.name}")
            self._world.machine.kill(process)

    def _freeze(self) -> None:
        """Freeze a process, a worker at work if there is one, perhaps beyond its lease."""
        busy = [each for each in self._world.kept if self._world.is_at_work(each)]
        process = self._world.machine.random.choice(busy) if busy else self._some_process()
        if process:
            lease_s = self._world.services.settings.lease_s
            seconds = self._world.machine.random.uniform(0.2, 3) * lease_s
            self._world.say(f"freezes {process.name} for {seconds:g} s")
            process.frozen_until = self._world.machine.now + seconds

    def _drain(self) -> None:
        process = self._some_process()
        worker = getattr(process, "worker", None)
        if process and worker:
            self._world.say(f"drains {process.name}")
            worker.shared.drain()

    def _wipe(self) -> None:
        self._world.say("wipes the broker")
        self._world.broker.wipe()

    def _ring_again(self) -> None:
        """Send doorbells for shards in any state, and one for none."""
        driver = self._world.services.database.driver
        rows = driver.execute("SELECT lower(hex(id)) FROM shards ORDER BY id").fetchall()
        for (digits,) in rows:
            self._world.broker.send(hyphenated(digits))

    def _lose_power(self) -> None:
        """Every process dies, and what the store has not flushed is lost."""
        self._world.say("loses power")
        for process in [*self._world.kept]:
            self._world.machine.kill(process)
        self._world.store.lose_power()

    def _take_away_database(self) -> None:
        self._take_away("database_is_away")

    def _take_away_store(self) -> None:
        self._take_away("store_is_away")

    def _take_away_broker(self) -> None:
        self._take_away("broker_is_away")
        if self._world.machine.random.random() < 0.5:
            self._world.broker.wipe()

    def _fail_over_database(self) -> None:
        """The database goes, and comes back as a replica whose clock may be ahead.

        At first the replica takes no writes.
        """
        ahead_s = self._world.machine.random.choice(CLOCKS_AHEAD_S)
        self._world.say(f"the database fails over, its clock is {ahead_s:g} s ahead")
        self._world.clock_ahead_s += ahead_s
        self._take_away("database_is_away", at_most_s=10)
        self._take_away("database_is_read_only")

    def _fail_over_broker(self) -> None:
        self._take_away("broker_is_away", at_most_s=10)
        self._world.broker.fail_over()

    def _spoil_checkpoint(self) -> None:
        """Delete the object of a checkpoint, or change its bytes."""
        driver, objects = self._world.services.database.driver, self._world.store.objects
        rows = driver.execute("SELECT key FROM checkpoints ORDER BY key").fetchall()
        keys = [key for (key,) in rows if key in objects]
        if not keys:
            return
        key = self._world.machine.random.choice(keys)
        self._world.say(f"spoils the checkpoint {key}")
        self._world.spoiled.add(key)
        lost = objects.pop(key)
        if self._world.machine.random.random() < 0.5:
            objects[key] = replace(lost, data=b"damaged")

    def _take_away(self, what: str, *, at_most_s: float = 1e9) -> None:
        machine = self._world.machine
        left_s = self._world.calm_at - machine.now
        seconds = min(machine.random.expovariate(1 / 30), left_s, at_most_s)
        self._world.say(f"{what} for {seconds:g} s")
        setattr(self._world, what, True)
        machine.later(seconds, lambda: setattr(self._world, what, False))
