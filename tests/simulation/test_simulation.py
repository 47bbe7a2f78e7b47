"""Seeds of the simulation: the protocol holds, and the same seed lives through the same world."""

from collections import deque
from collections.abc import Iterator

import pytest

from tests.simulation import run
from tests.simulation.mutations import MUTATIONS
from tests.simulation.run import Simulation
from tests.simulation.world import Violation

SEEDS = 30  # some seconds
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
def test_processes_share_the_seeds(monkeypatch):
    monkeypatch.setattr(run, "SEEDS_AT_ONCE", 50)
    told = []
    assert run.first_violation(range(200, 400), processes=2, tell=told.append) is None
    assert told[0] == "seeds 200 to 249: no violation"
    assert len(told) == 4


def traced(simulation: Simulation, seed: int) -> list[str]:
    simulation.trace = (lines := []).append
    simulation.run(seed)
    simulation.trace = None
    return lines
