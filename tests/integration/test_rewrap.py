"""The installation key is changed while workers run: no job fails, and none is left unmarked."""

from pathlib import Path

import pytest

from db import jobs
from db.states import FINAL
from tests.integration.conftest import Deployment, quick_settings
from tests.keyrings import add_key
from worker.keys.keyring import load_keyring
from worker.keys.master import FileMaster
from worker.marks.c2pa import MARK
from worker.media import find_medium
from worker.services import Services
from worker.services.rewrapping import rewrap
from worker.services.samples import find_sample, read_sample
from worker.settings import Settings

COUNT = 40


@pytest.fixture
def deployment(tmp_path, database_url, broker_url):
    """A deployment whose store needs the installation key, too."""
    places = {"store_url": (tmp_path / "store").as_uri(), "store_encryption": "aes-256-gcm"}
    made = Deployment(quick_settings(tmp_path, database_url, broker_url, **places))
    yield made
    made.stop()


def with_key(settings: Settings, path: Path) -> Settings:
    """The same settings, but for the installation key."""
    return Settings(_env_file=None, **settings.model_dump() | {"key_file": path})


def errors(deployment: Deployment, job_id: str) -> str:
    """Why shards of a job were given back; none has failed."""
    with deployment.services.database.read() as session:
        shards = jobs.shards_of(session, job_id)
    assert {shard.failures for shard in shards} == {0}, deployment.logs()
    return " ".join(filter(None, (shard.last_error for shard in shards)))


def readings(services: Services, job_id: str) -> set[tuple[str, object]]:
    """What the signatures of a job's samples say: their states, and whose they are."""
    with services.database.read() as session:
        ring = load_keyring(session, services.settings)
    samples = (read_sample(services, *find_sample(services, job_id, n)) for n in range(COUNT))
    found = [MARK.read(data, ring, find_medium("image")) for data in samples]
    return {(each.state, each.says.get("trust")) for each in found}


@pytest.mark.slow
@pytest.mark.usefixtures("digits", "tiny")
def test_no_job_fails_under_a_worker_that_holds_the_key_until_now(deployment):
    settings = deployment.settings
    old, new = settings.master_key, settings.home / "new.key"
    add_key(deployment.services.database, settings, "signing")
    new.write_text("ab" * 32)
    new.chmod(0o400)
    deployment.worker()

    def signed(seed: int) -> str:
        marks = {"name": "p", "marks": ["record", "c2pa"]}
        return deployment.generate(COUNT, shard_size=10, seed=seed, marks=marks).id

    before = signed(0)
    deployment.succeed(before)
    late = Services(with_key(settings, new))
    with deployment.held():
        during = signed(1)
        deployment.wait("a running job", lambda: deployment.job(during).status == "running")
        done = rewrap(late, FileMaster(old), who="ann")
    assert done.keys >= 2  # of signing, its authority, perhaps of heads
    assert done.store
    after, plain = signed(2), deployment.generate(COUNT, seed=3).id
    deployment.succeed(plain)  # it needs no key on record, and the store's is known
    wrong = "is not the one that wrapped"
    deployment.wait("a shard that is given back", lambda: wrong in errors(deployment, after))
    assert deployment.job(after).status not in FINAL
    deployment.worker(key_file=new)
    deployment.succeed(during, after)
    old.unlink()
    for job in (before, during, after):
        errors(deployment, job)
        assert readings(late, job) == {("present", "ours")}
    late.close()


@pytest.mark.slow
@pytest.mark.usefixtures("digits", "tiny")
def test_a_key_that_is_replaced_in_its_place_needs_no_restart(deployment):
    settings = deployment.settings
    old, new = settings.master_key, settings.home / "new.key"
    add_key(deployment.services.database, settings, "signing")
    new.write_text("ab" * 32)
    new.chmod(0o400)
    deployment.worker()
    marks = {"name": "p", "marks": ["record", "c2pa"]}
    late = Services(with_key(settings, new))
    rewrap(late, FileMaster(old), who="ann")
    late.close()
    job = deployment.generate(COUNT, shard_size=10, marks=marks).id
    wrong = "is not the one that wrapped"
    deployment.wait("a shard that is given back", lambda: wrong in errors(deployment, job))
    new.replace(old)
    deployment.succeed(job)
    assert readings(deployment.services, job) == {("present", "ours")}
