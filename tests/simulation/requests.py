"""What simulated users ask for: samples, orders of accepted ones, trainings, chains and batches."""

from collections.abc import Callable
from itertools import pairwise
from random import Random
from typing import TYPE_CHECKING, Any

from worker.specs import Spec, parse_spec

if TYPE_CHECKING:
    from tests.simulation.processes import Client

MODEL, WRITER, DATA, TRAINED = "tiny", "prose", "pictures", "line"  # TRAINED is made by trainings
TRIES = 3  # samples that an order makes at most for each that it wants
LINES = [
    '{"kind": "generate", "model": "tiny", "count": 4, "seed": 1, "custom_id": "a"}',
    '{"kind": "generate", "model": "tiny", "count": 2, "seed": 2}',
    '{"kind": "generate", "model": "tiny", "count": 2, "seed": 3, "after": "a"}',
]


def _generate(model: str, count: int, **more: Any) -> Spec:
    return parse_spec({"kind": "generate", "model": model, "count": count, "seed": count, **more})


ONE, SIX = _generate(MODEL, 1), _generate(MODEL, 6)
ORDER = _generate(WRITER, 6, accept={"min_length": 2, "tries": TRIES})
TRAIN = parse_spec({"kind": "train", "family": "vae", "model": TRAINED, "dataset": DATA, "seed": 1})
OF_TRAINED = _generate(TRAINED, 2)
SPECS = [ONE, SIX, ORDER, TRAIN]  # whose checks are the same in all simulations


def ask(client: "Client", random: Random) -> None:
    """Ask for something, and follow it to its end."""
    [kind] = random.choices(list(KINDS), list(KINDS.values()))
    kind(client, random)


def _samples(client: "Client", random: Random) -> None:
    then = [ONE] if random.random() < 0.2 else []
    client.run(SIX, then, _cut(random, random.choice([1, 2, 3])))


def _order(client: "Client", random: Random) -> None:
    client.run(ORDER, [], _cut(random, random.choice([1, 1, 2])))


def _training(client: "Client", random: Random) -> None:
    client.run(TRAIN, [OF_TRAINED] if random.random() < 0.3 else [], [(0, 1)])


def _batch(client: "Client", random: Random) -> None:
    client.run_batch(LINES[: random.randint(1, len(LINES))])


def _cut(random: Random, count: int) -> list[tuple[int, int]]:
    """Six samples in so many shards."""
    return list(pairwise(sorted({0, 6, *random.sample(range(1, 6), count - 1)})))


KINDS: dict[Callable[["Client", Random], None], int] = {  # and how often
    _samples: 12,
    _order: 2,
    _training: 4,
    _batch: 2,
}
