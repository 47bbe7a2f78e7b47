"""A training that is killed again and again ends with the weights of one that was left alone."""

import json
import random
import signal
import time

import pytest

from tests.families.kit import base_for, dataset_for
from tests.families.surviving import STEP, checkpoints, run, start
from worker.families import families, find_family

KILLS = 20
PATIENCE_S = 120.0
pytestmark = pytest.mark.usefixtures("one_thread")  # as the processes that are killed have


class Trainee:
    """A training of a family in processes that are killed."""

    def __init__(self, family, folder, *, steps):
        self.family, self.folder, self.steps = find_family(family), folder, steps
        self.dataset = dataset_for(self.family, folder / "dataset")
        self.base = None if self.family.trains else base_for(self.dataset)

    def request(self, name, *, pause_s=0.0):
        """The file that asks for the training of this name."""
        work = self.folder / name
        work.mkdir(exist_ok=True)
        data = {
            "family": self.family.name,
            "dataset": str(self.dataset.folder),
            "base": self.base and str(self.base),
            "work": str(work),
            "steps": self.steps,
            "pause_s": pause_s,
            "params": {"validate_every": 5, "preview_every": 7},
        }
        path = self.folder / f"{name}.json"
        path.write_text(json.dumps(data))
        return path

    def finish(self, name):
        """Let the training end, in this process; its weights."""
        return run(self.request(name)).read_bytes()

    def kill_at(self, name, step):
        """Go on, and kill the process once that many steps are done."""
        told = self.folder / name / STEP
        told.unlink(missing_ok=True)
        process = start(self.request(name, pause_s=0.01))
        deadline = time.monotonic() + PATIENCE_S
        while process.is_alive() and not reached(told, step):
            assert time.monotonic() < deadline
            time.sleep(0.001)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL


def reached(told, step):
    try:
        return float(told.read_text() or 0) >= step
    except FileNotFoundError:
        return False


def steps_to_kill_at(kills, steps, seed):
    """Steps in a rising order, some of them twice."""
    return sorted(random.Random(seed).choices(range(1, steps), k=kills))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("family", sorted(families()))
def test_twenty_kills_at_random_steps_change_no_bit(family, tmp_path):
    trainee = Trainee(family, tmp_path, steps=60)
    for step in steps_to_kill_at(KILLS, 60, family):
        trainee.kill_at("killed", step)
    assert checkpoints(tmp_path / "killed")
    assert trainee.finish("killed") == trainee.finish("straight")


@pytest.mark.parametrize("family", ["gan", pytest.param("rnn", marks=pytest.mark.slow)])
def test_a_kill_changes_no_bit_and_a_torn_checkpoint_is_passed_over(family, tmp_path):
    trainee = Trainee(family, tmp_path, steps=16)
    trainee.kill_at("killed", 11)
    newest, *_ = checkpoints(tmp_path / "killed")
    newest.write_bytes(newest.read_bytes()[:-100])
    assert trainee.finish("killed") == trainee.finish("straight")
