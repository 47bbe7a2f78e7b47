"""A training is killed, and its checkpoints are damaged or gone: it ends with the same weights."""

import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from sqlalchemy import select

from db import jobs, models
from db.states import FINAL
from db.tables import Checkpoint
from tests.chaos.scenarios import NAMED, start, trainer, work_through
from tests.chaos.struck import Struck
from tests.chaos.trial import FOLDER, LEASE_BOUND_S, Trial
from tests.integration.conftest import PATIENCE_S

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]

STEPS = 8


@pytest.fixture
def made(trial, places) -> Trial:
    """A trial with the digits, and a model that was trained without any fault."""
    found = trial("a training killed after checkpoints", places, bound_s=LEASE_BOUND_S,
                  failpoint="").digits()  # fmt: skip
    job = found.train(model="straight", max_steps=STEPS)
    work_through(found, lambda: found.job(job.id).status == "succeeded")
    return found


def weights(made: Trial, reference: str) -> str:
    with made.services.database.read() as session:
        return models.resolve(session, reference)[1].weights_sha256


def killed_after(made: Trial, checkpoints: int, *, point: str = "checkpoint_stored"):
    """A training whose worker was killed once it had stored so many checkpoints."""
    job = made.train(model="resumed", max_steps=STEPS)
    process = start(trainer, made.settings, f"{point}:sigkill:{checkpoints}", os.environ)
    process.join(PATIENCE_S)
    assert not process.is_alive()
    made.inject()
    return job


def recorded(made: Trial) -> list[Checkpoint]:
    """The checkpoints on record, newest first."""
    with made.services.database.read() as session:
        return list(session.scalars(select(Checkpoint).order_by(Checkpoint.step.desc())))


def finish(made: Trial, job) -> str:
    """Let another worker finish the job; return its log."""
    work_through(made, lambda: made.job(job.id).status in FINAL)
    made.recover()
    assert weights(made, "resumed") == weights(made, "straight")
    with made.services.database.read() as session:
        return "\n".join(line.message for line in jobs.log_lines(session, job.id))


@pytest.mark.parametrize("checkpoints", [1, 2, 5])
def test_a_killed_training_resumes_from_its_last_checkpoint(made, checkpoints) -> None:
    job = killed_after(made, checkpoints + 1)
    steps = [each.step for each in recorded(made)]
    assert steps
    log = finish(made, job)
    assert f"resuming from the checkpoint of step {steps[0]}" in log


@pytest.mark.parametrize("places", [FOLDER], indirect=True)
@pytest.mark.parametrize("damage", ["corrupt", "truncated", "gone"])
def test_a_damaged_checkpoint_is_marked_and_the_one_before_it_used(made, damage) -> None:
    job = killed_after(made, 4)
    newest, before = recorded(made)[:2]
    path = Path(unquote(urlsplit(made.settings.store).path)) / newest.key
    data = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(data[: len(data) // 2] if damage == "truncated" else data[::-1])
    log = finish(made, job)
    assert f"the checkpoint of step {newest.step} cannot be used" in log
    assert f"resuming from the checkpoint of step {before.step}" in log


@pytest.mark.parametrize("places", [FOLDER], indirect=True)
def test_checkpoints_that_are_all_damaged_mean_a_new_beginning(made) -> None:
    job = killed_after(made, 4)
    root = Path(unquote(urlsplit(made.settings.store).path))
    for each in recorded(made):
        (root / each.key).write_bytes(b"damaged")
    log = finish(made, job)
    assert "resuming from" not in log


@pytest.mark.parametrize("places", [FOLDER], indirect=True)
def test_a_zombies_checkpoint_is_refused(made) -> None:
    job = made.train(model="resumed", max_steps=STEPS)
    zombie = Struck(made, NAMED["training"], "checkpoint_stored", "stop", 3)
    work_through(made, lambda: made.job(job.id).status in FINAL)
    before = [(each.step, each.sha256) for each in recorded(made)]
    zombie.wake()
    assert [(each.step, each.sha256) for each in recorded(made)] == before
    made.recover()
    assert weights(made, "resumed") == weights(made, "straight")
