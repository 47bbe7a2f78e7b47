"""A checkpoint is bad only if its content is: never because it could not be read."""

import errno
import os

import pytest
from safetensors import SafetensorError

from db import jobs, shards
from db.errors import BadInput, DigestMismatch, Unreachable
from worker.engine import tensors
from worker.services import Services
from worker.settings import Settings
from worker.shards.lease import Lease
from worker.shards.train import _resume_point
from worker.shared_memory import SharedState


@pytest.fixture
def resuming(tmp_path, database_url):
    """A training with one checkpoint, about to be resumed: a function that does it."""
    services = Services(Settings(_env_file=None, home=tmp_path, database_url=database_url))
    path = tmp_path / "checkpoint"
    about = {"identity": "x", "state": {"step": 5}, "optimizers": {}}
    tensors.write_tensors(path, {}, about=about)

    def add(session):
        job = jobs.add(
            session, spec={}, spec_hash="0" * 64, kind="train", model="m", ranges=[(0, 1)]
        )
        shard = jobs.shards_of(session, job.id)[0]
        return shards.claim(session, shard.id, owner="me", lease_s=60)

    claim = services.database.transact(add)
    blob = services.store.put(f"jobs/{claim.job_id}/blobs", path)
    stored = {"step": 5, "key": blob.key, "sha256": blob.sha256, "size": blob.size}
    services.database.transact(lambda s: shards.add_checkpoint(s, claim, **stored))
    lease = Lease(services, claim, shared=SharedState())

    def resume():
        with services.database.read() as session:
            job = jobs.briefs(session, {claim.job_id})[claim.job_id]
        return _resume_point(services, job, lease, tmp_path / "resume.safetensors")

    def condemned():
        with services.database.read() as session:
            return shards.latest_checkpoint(session, claim.shard_id) is None

    yield resume, condemned, services
    services.close()


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EMFILE, errno.ENOENT])
@pytest.mark.parametrize("by_rust", [True, False])
def test_a_file_that_cannot_be_read_now_is_not_condemned(
    resuming, monkeypatch, number, by_rust
) -> None:
    resume, condemned, _ = resuming
    text = os.strerror(number)
    error = SafetensorError(f"{text} (os error {number})") if by_rust else OSError(number, text)

    def fails(*_, **__):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(tensors, "safe_open", fails)
        with pytest.raises(OSError, match=text) as raised:
            resume()
    assert raised.value.errno == number
    assert not condemned()
    assert resume() is not None


@pytest.mark.parametrize(
    ("error", "bad"), [(Unreachable("away"), False), (DigestMismatch("other bytes"), True)]
)
def test_only_other_bytes_condemn_what_the_store_has(resuming, monkeypatch, error, bad) -> None:
    resume, condemned, services = resuming

    def fails(*_, **__):
        raise error

    monkeypatch.setattr(services.store, "fetch", fails)
    if bad:
        assert resume() is None
    else:
        with pytest.raises(Unreachable):
            resume()
    assert condemned() is bad


def test_what_is_no_checkpoint_is_condemned(resuming, monkeypatch) -> None:
    resume, condemned, _ = resuming

    def no_checkpoint(_):
        raise BadInput("not a checkpoint")

    monkeypatch.setattr("worker.engine.checkpoints.check", no_checkpoint)
    assert resume() is None
    assert condemned()
