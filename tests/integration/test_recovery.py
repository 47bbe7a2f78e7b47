"""A backup taken in the middle of everything, the loss of everything, and the way back."""

import os
import shutil
import signal
from pathlib import Path

import pytest

from db.states import FINAL
from scheduler.audit.auditor import Auditor
from scheduler.recovery.backup import back_up
from scheduler.recovery.restore import restore
from tests.integration.conftest import Deployment, empty, quick_settings


@pytest.fixture
def elsewhere(tmp_path: Path, database_url: str, broker_url: str):
    """Another home, with an empty database and an empty store."""
    made = []

    def move(lost: Deployment) -> Deployment:
        for process in lost.processes:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        home, url = tmp_path / "new home", database_url
        home.mkdir()
        if url.startswith("sqlite"):
            url = f"sqlite:///{home / 'genmill.db'}"
        else:
            lost.services.close()
            empty(url)
        shutil.rmtree(tmp_path / "store", ignore_errors=True)
        places = {"store_url": (home / "store").as_uri()}
        made.append(Deployment(quick_settings(home, url, broker_url, **places)))
        return made[-1]

    yield move
    for each in made:
        each.stop()


@pytest.mark.slow
def test_every_job_ends_after_backup_loss_and_restore(deployment, tiny, digits, elsewhere):
    deployment.worker()
    slow = {"params": {"micro_batch": 1}}
    early = [deployment.generate(n, seed=n).id for n in (3, 20)]
    deployment.finish(*early)
    with deployment.held():
        training = deployment.train(max_steps=50)
        deployment.wait("a running job", lambda: deployment.job(training.id).status == "running")
        late = [deployment.generate(200, seed=n, shard_size=20, **slow).id for n in range(3)]
        made = back_up(deployment.services, deployment.settings.home / "backup", mode="copy")
    assert made.problems == []
    everything = [*early, training.id, *late]
    deployment.wait("an end", lambda: deployment.job(training.id).status in FINAL)

    other = elsewhere(deployment)
    restored = restore(other.services, made.folder, who="ann")
    assert restored.released >= 1
    assert [str(each) for each in Auditor(other.services).violations()] == []
    other.worker()
    other.succeed(*everything)
    assert [str(each) for each in Auditor(other.services).violations()] == []
    assert [len(other.digests(job_id)) for job_id in late] == [200] * 3
    assert not other.job(training.id).error
