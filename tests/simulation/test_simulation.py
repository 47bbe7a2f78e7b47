"""Seeds of the simulation: the protocol holds, and the same seed lives through the same world."""

import os
from collections import deque
from collections.abc import Iterator

import pytest

from tests.simulation.mutations import MUTATIONS
from tests.simulation.run import Simulation, first_violation
from tests.simulation.world import Violation

SEEDS = 30  # some seconds
MANY = int(os.environ.get("GENMILL_SEEDS", "5000"))
FOUND_WITHIN = 10_000


@pytest.fixture(scope="module")
def simulation() -> Iterator[Simulation]:
    with Simulation() as running:
        yield running


def test_no_seed_breaks_a_rule(simulation):
    for seed in range(SEEDS):
        simulation.run(seed)


def test_a_seed_replays_exactly(simulation):
    first = traced(simulation, 7)
    assert traced(simulation, 8) != first
    assert traced(simulation, 7) == first


@pytest.mark.parametrize("name", ["claim takes live leases", "claims are not counted"])
def test_some_rules_that_are_left_out_are_found_at_once(simulation, name):
    with MUTATIONS[name](), pytest.raises(Violation):
        deque(map(simulation.run, range(20)), maxlen=0)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", MUTATIONS)
def test_each_rule_that_is_left_out_is_found(simulation, name):
    with MUTATIONS[name](), pytest.raises(Violation):
        deque(map(simulation.run, range(FOUND_WITHIN)), maxlen=0)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_no_seed_of_very_many_breaks_a_rule():
    assert first_violation(range(MANY), processes=os.cpu_count() or 1) is None


def traced(simulation: Simulation, seed: int) -> list[str]:
    simulation.trace = (lines := []).append
    simulation.run(seed)
    simulation.trace = None
    return lines
