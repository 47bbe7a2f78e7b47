"""A lease in a worker's hands: it holds, it brings orders, and what is not its own it leaves."""

import threading
import time
from contextlib import ExitStack
from functools import partial

import pytest

from db import artifacts, jobs, shards
from db.errors import Cancelled, Draining, LeaseLost, Unreachable
from db.interventions import end_early
from db.progress import of
from db.shards import NewArtifact
from tests.faults import ERRORS, name_of
from worker.services import Services
from worker.settings import Settings
from worker.shards.commits import commit
from worker.shards.context import ShardResult
from worker.shards.heartbeat import Heartbeat
from worker.shards.lease import Lease, hang_checks_paused
from worker.shared_memory import SharedState

INDEX = shards.NewIndex(range(1), "0" * 64, data=bytes(44))


@pytest.fixture
def services(tmp_path, database_url, monkeypatch):
    """Leases that hold for a minute, so that no busy machine loses one, and a quick heart."""
    monkeypatch.setattr("worker.shards.heartbeat.MAX_BEAT_S", 0.1)
    opened = Services(
        Settings(_env_file=None, home=tmp_path, database_url=database_url, lease_s=60, hang_s=60)
    )
    yield opened
    opened.close()


@pytest.fixture
def hasty(services):
    """The same services, but work is held to hang after a fifth of a second."""
    opened = Services(services.settings.model_copy(update={"hang_s": 0.2}))
    yield opened
    opened.close()


@pytest.fixture
def claim(services):
    """A claim on the only shard of a fresh one-sample job, its lease run out already."""
    return claim_new(services)


def claim_new(services):
    def work(session):
        job = jobs.add(
            session, spec={}, spec_hash="0" * 64, kind="generate", model="m", ranges=[(0, 1)]
        )
        shard = jobs.shards_of(session, job.id)[0]
        return shards.claim(session, shard.id, owner="me", lease_s=-1)

    return services.database.transact(work)


class Hold(Lease):
    """A lease with a heartbeat of its own."""

    def __init__(self, services, claim, shared, on_hang):
        super().__init__(services, claim, shared=shared)
        self.heartbeat = Heartbeat(
            services, claim.owner, pause_s=lambda least_s: least_s, on_hang=on_hang
        )
        self.shared = shared

    def __enter__(self):
        self.block = ExitStack()
        self.block.enter_context(self.heartbeat)
        self.block.enter_context(self.heartbeat.renewing([self]))
        return self

    def __exit__(self, *error):
        self.block.__exit__(*error)

    def commit_one(self, artifacts):
        outcome = commit(self.heartbeat, {self: ShardResult(artifacts)}, self.shared)
        if outcome[self.claim.shard_id] is not None:
            raise outcome[self.claim.shard_id]

    def renew(self):
        self.heartbeat.renew([self])


def hold(services, claim, *, shared=None, on_hang=lambda: None):
    return Hold(services, claim, shared or SharedState(), on_hang)


def told_to_stop(lease):
    """Work on until an order to stop comes, and return it."""
    for done in range(2000):
        try:
            lease.progress(done, 10_000, "samples")
        except (Cancelled, LeaseLost, Draining) as order:
            return order
        time.sleep(0.01)
    return None


def made(claim, **changes):
    columns = {"kind": "samples", "name": "s.tar", "key": "k", "sha256": "0" * 64, "size": 1}
    return NewArtifact(**{**columns, "media_type": "application/x-tar", "index": INDEX} | changes)


def reap(services):
    return services.database.transact(shards.reap)


def done_of(session, claim):
    return of(session, [jobs.get(session, claim.job_id)])[claim.job_id].get("done")


def progress(services, claim):
    with services.database.read() as session:
        return done_of(session, claim)


def status(services, claim):
    with services.database.read() as session:
        return jobs.shards_of(session, claim.job_id)[0].status


def test_a_lease_outlasts_its_time_while_the_work_goes_on(services, claim) -> None:
    with hold(services, claim) as lease:
        lease.progress(1, 10, "samples")
        while not progress(services, claim):  # until its heart has beaten
            time.sleep(0.01)
        assert reap(services) == []
        lease.commit_one([made(claim)])
    assert status(services, claim) == "succeeded"


def test_progress_curves_and_log_lines_reach_the_record(services, claim) -> None:
    with hold(services, claim) as lease:
        lease.progress(0.5, 1, "samples", note="half")
        lease.points(3, {"loss": 0.5})
        lease.log("hello", level="warning")
        lease.commit_one([made(claim)])
    with services.database.read() as session:
        assert [point.value for point in jobs.points(session, claim.job_id)] == [0.5]
        assert [line.message for line in jobs.log_lines(session, claim.job_id)] == ["hello"]


def test_the_last_log_lines_of_work_that_failed_are_kept(services, claim) -> None:
    def work():
        with hold(services, claim) as lease:
            lease.log("dividing")
            return 1 / 0

    with pytest.raises(ZeroDivisionError):
        work()
    with services.database.read() as session:
        assert [line.message for line in jobs.log_lines(session, claim.job_id)] == ["dividing"]


def test_stages_and_warnings_are_shown_beside_the_progress(services) -> None:
    job, claim = add_training(services)
    with hold(services, claim) as lease:
        lease.stages([{"name": "loading"}])
        lease.renew()
        assert shown(services, job) == {"stages": [{"name": "loading"}]}
        lease.progress(1, 5, "step")
        lease.renew()
        assert shown(services, job)["stages"] == [{"name": "loading"}]
        lease.stages([])
        lease.warn("they hardly differ")
        lease.renew()
        assert shown(services, job).keys() == {"done", "total", "unit", "eta_s", "note", "warnings"}
        lease.progress(5, 5, "step")
        lease.commit_one([])
    assert shown(services, job)["warnings"] == ["they hardly differ"]
    assert lines(services, claim) == ["they hardly differ"]


def test_while_a_network_is_loaded_its_job_says_so(services, claim) -> None:
    with hold(services, claim) as lease:
        lease.stages([{"name": "loading"}])
        lease.renew()
        with services.database.read() as session:
            job = jobs.get(session, claim.job_id)
            found = of(session, [job])[job.id]
        assert (found["done"], found["stages"]) == (0, [{"name": "loading"}])


def shown(services, job):
    with services.database.read() as session:
        return of(session, [jobs.get(session, job.id)])[job.id]


def add_training(services):
    def add(session):
        job = jobs.add(
            session, spec={}, spec_hash="0" * 64, kind="train", model="m", ranges=[(0, 1)]
        )
        shard = jobs.shards_of(session, job.id)[0]
        return job, shards.claim(session, shard.id, owner="me", lease_s=60)

    return services.database.transact(add)


def test_a_commit_tells_the_progress_that_no_heartbeat_has_told(services) -> None:
    _, claim = add_training(services)
    with hold(services, claim) as lease:
        lease.progress(5, 5, "step")
        lease.commit_one([])
    with services.database.read() as session:
        assert done_of(session, claim) == 5


def test_a_cancelled_job_stops_its_work_and_nothing_is_committed(services, claim) -> None:
    with hold(services, claim) as lease:
        services.database.transact(lambda session: jobs.cancel(session, claim.job_id))
        assert isinstance(told_to_stop(lease), Cancelled)
        with pytest.raises(Cancelled):
            lease.commit_one([made(claim)])
    with services.database.read() as session:
        assert artifacts.of_job(session, claim.job_id) == []


def test_a_shard_taken_over_stops_its_first_owner(services, claim) -> None:
    thief = services.database.transact(
        lambda session: shards.claim(session, claim.shard_id, owner="thief", lease_s=60)
    )
    with hold(services, claim) as lease:
        assert isinstance(told_to_stop(lease), LeaseLost)
    with pytest.raises(LeaseLost), hold(services, claim) as lease:
        lease.commit_one([made(claim)])
    with hold(services, thief) as lease:
        lease.commit_one([made(thief)])


def test_a_draining_worker_stops_between_two_steps_but_not_after_the_last(services, claim) -> None:
    shared = SharedState()
    shared.drain()
    with hold(services, claim, shared=shared) as lease:
        with pytest.raises(Draining):
            lease.progress(1, 2, "samples")
        lease.progress(2, 2, "samples")
        lease.commit_one([made(claim)])


def test_work_that_hangs_is_given_up_and_counted(services, hasty, claim) -> None:
    ended = threading.Event()
    with hold(hasty, claim, on_hang=ended.set):
        assert ended.wait(timeout=20)
    with services.database.read() as session:
        shard = jobs.shards_of(session, claim.job_id)[0]
    assert (shard.status, shard.failures) == ("queued", 1)
    assert "no progress for 0.2 s" in shard.last_error


def test_a_long_transfer_is_no_hang(hasty, claim) -> None:
    ended = threading.Event()
    lease = hold(hasty, claim, on_hang=ended.set)
    with hang_checks_paused([lease]), lease:  # paused before the first heartbeat checks
        time.sleep(0.8)
        lease.commit_one([made(claim)])
        over = time.monotonic()
    assert not ended.is_set()
    assert lease._progress_at >= over


def test_work_that_goes_on_after_a_cancellation_ends_with_its_process(services, claim) -> None:
    ended = threading.Event()
    with hold(services, claim, on_hang=ended.set):
        services.database.transact(lambda session: jobs.cancel(session, claim.job_id))
        assert ended.wait(5)


def test_work_that_stops_when_it_is_told_keeps_its_process(services, claim, monkeypatch) -> None:
    monkeypatch.setattr("worker.shards.heartbeat.STOP_S", 0.3)
    ended = threading.Event()
    with hold(services, claim, on_hang=ended.set) as lease:
        services.database.transact(lambda session: jobs.cancel(session, claim.job_id))
        assert isinstance(told_to_stop(lease), Cancelled)
    assert not ended.wait(0.6)


def test_a_cancellation_beside_other_work_ends_no_process(services, claim, monkeypatch) -> None:
    monkeypatch.setattr("worker.shards.heartbeat.STOP_S", 0.3)
    ended = threading.Event()
    other = Lease(services, claim_new(services), shared=SharedState())
    with hold(services, claim, on_hang=ended.set) as lease:
        lease.heartbeat._work = [lease, other]
        services.database.transact(lambda session: jobs.cancel(session, claim.job_id))
        assert isinstance(told_to_stop(lease), Cancelled)
        assert not ended.wait(0.8)


def test_previews_are_replaced_and_checkpoints_kept_on_record(services, claim, tmp_path) -> None:
    path = tmp_path / "p.png"
    with hold(services, claim) as lease:
        for content in (b"first", b"second"):
            path.write_bytes(content)
            lease.preview("page", path, "image/png")
        lease.checkpoint(5, path)
    with services.database.read() as session:
        (artifact,) = artifacts.of_job(session, claim.job_id)
        checkpoint = shards.latest_checkpoint(session, claim.shard_id)
    assert (artifact.kind, artifact.size) == ("preview", 6)
    assert (checkpoint.step, checkpoint.key) == (5, artifact.key)


def claim_training(services):
    def work(session):
        job = jobs.add(
            session, spec={}, spec_hash="0" * 64, kind="train", model="m", ranges=[(0, 1)]
        )
        shard = jobs.shards_of(session, job.id)[0]
        return shards.claim(session, shard.id, owner="me", lease_s=60)

    return services.database.transact(work)


def test_a_training_learns_with_a_heartbeat_that_it_is_to_end_early(services) -> None:
    claim = claim_training(services)
    with hold(services, claim) as lease:
        lease.renew()
        assert not lease.held.ends_early
        services.database.transact(partial(end_early, job_id=claim.job_id))
        lease.renew()
        assert lease.held.ends_early
        lease.progress(1, 10, "step")  # that is no order to stop


@pytest.mark.parametrize("heard", [True, False])
def test_a_cancelled_training_leaves_its_last_checkpoint(services, tmp_path, heard) -> None:
    claim, path = claim_training(services), tmp_path / "c"
    path.write_bytes(b"state")
    lease = Lease(services, claim, shared=SharedState())
    services.database.transact(lambda session: jobs.cancel(session, claim.job_id))
    if heard:
        lease.held.order = Cancelled()
    with pytest.raises(Cancelled):
        lease.checkpoint(7, path)
    with services.database.read() as session:
        assert shards.latest_checkpoint(session, claim.shard_id).step == 7


def test_a_zombie_leaves_none(services, tmp_path) -> None:
    claim, path = claim_training(services), tmp_path / "c"
    path.write_bytes(b"state")
    lease = Lease(services, claim, shared=SharedState())
    services.database.transact(lambda session: shards.release(session, claim, "away"))
    services.database.transact(
        lambda session: shards.claim(session, claim.shard_id, owner="heir", lease_s=60)
    )
    services.database.transact(lambda session: jobs.cancel(session, claim.job_id))
    with pytest.raises(LeaseLost):
        lease.checkpoint(7, path)
    with services.database.read() as session:
        assert shards.latest_checkpoint(session, claim.shard_id) is None


def test_work_that_has_heard_has_time_to_leave_and_no_more(services, claim, monkeypatch) -> None:
    monkeypatch.setattr("worker.shards.heartbeat.STOP_S", 0.1)
    ended = threading.Event()
    with hold(services, claim, on_hang=ended.set) as lease:
        services.database.transact(lambda session: jobs.cancel(session, claim.job_id))
        assert isinstance(told_to_stop(lease), Cancelled)
        assert not ended.wait(0.5)
        lease.heartbeat._see_that_it_stops(lease.heartbeat._work, patience_s=0.2)
        assert ended.wait(5)


class LostReplies:
    """A database whose reply to the first COMMIT (of `thread`, if one is given) never arrives."""

    def __init__(self, database, *, committed, thread=None):
        self.database = database
        self.committed = committed
        self.thread = thread
        self.lost = False

    def __getattr__(self, name):
        return getattr(self.database, name)

    def transact(self, work):
        if self.lost or self.thread not in {None, threading.current_thread()}:
            return self.database.transact(work)
        self.lost = True
        if self.committed:
            self.database.transact(work)
        raise Unreachable("the connection was lost during COMMIT")


@pytest.mark.parametrize("committed", [True, False])
def test_a_commit_without_a_reply_ends_the_same_either_way(services, claim, committed) -> None:
    lease = hold(services, claim)
    real = services.database
    services.__dict__["database"] = LostReplies(real, committed=committed)
    lease.commit_one([made(claim)])
    assert status(services, claim) == "succeeded"
    with real.read() as session:
        assert len(artifacts.of_job(session, claim.job_id)) == 1


def lines(services, claim):
    """The messages in the job's log."""
    with services.database.read() as session:
        return [line.message for line in jobs.log_lines(session, claim.job_id)]


class SlowHeartbeat:
    """A database that answers a heartbeat only once the main thread has written, or in a second."""

    def __init__(self, database):
        self.database = database
        self.heard = threading.Event()
        self.written = threading.Event()

    def __getattr__(self, name):
        return getattr(self.database, name)

    def transact(self, work):
        done = self.database.transact(work)
        if threading.current_thread() is threading.main_thread():
            self.written.set()
        else:
            self.heard.set()
            self.written.wait(timeout=1)
        return done


def test_a_commit_beside_a_heartbeat_writes_no_line_twice(services, claim) -> None:
    database = SlowHeartbeat(services.database)
    services.__dict__["database"] = database
    lease = hold(services, claim)
    lease.log("hello")
    with lease:
        assert database.heard.wait(timeout=20)
        lease.commit_one([made(claim)])
    assert lines(services, claim) == ["hello"]


def test_a_heartbeat_without_a_reply_writes_no_line_twice(services, claim) -> None:
    lease = hold(services, claim)
    services.__dict__["database"] = LostReplies(services.database, committed=True)
    lease.log("hello")
    with pytest.raises(Unreachable):
        lease.renew()
    lease.renew()
    assert lines(services, claim) == ["hello"]


def test_a_heartbeat_after_a_commit_without_a_reply_is_no_order_to_stop(services, claim) -> None:
    lease = hold(services, claim)
    real = services.database
    services.__dict__["database"] = LostReplies(
        real, committed=True, thread=threading.main_thread()
    )
    with lease:  # its heart beats ten times before the commit looks again
        lease.commit_one([made(claim)])
    assert status(services, claim) == "succeeded"


class Panic(BaseException):
    """What native code raises."""


TROUBLES = [OSError("disk"), KeyError("key"), RuntimeError("surprise"), SystemExit(1), Panic()]


@pytest.mark.parametrize(
    "error", [each for each in ERRORS if not isinstance(each, Unreachable)], ids=name_of
)
def test_what_cannot_be_written_for_one_keeps_no_claim_from_being_renewed(
    services, claim, error
) -> None:
    lease, other = hold(services, claim), hold(services, claim_new(services))

    def spoilt(_):
        raise error

    lease.held.pending.append(spoilt)
    lease.log("told")
    other.log("told too")
    lease.heartbeat.renew([lease, other])
    assert lines(services, lease.claim) == ["told"]
    assert lines(services, other.claim) == ["told too"]
    assert lease.held.pending == other.held.pending == []
    assert reap(services) == []


def test_no_error_stops_the_heart(services, claim, monkeypatch, caplog) -> None:
    real, troubles = shards.renew_all, TROUBLES[:]

    def unsteady(*arguments, **options):
        if troubles:
            raise troubles.pop()
        return real(*arguments, **options)

    monkeypatch.setattr(shards, "renew_all", unsteady)
    with hold(services, claim) as lease:
        lease.progress(1, 10, "samples")
        deadline = time.monotonic() + 20
        while not progress(services, claim) and time.monotonic() < deadline:
            time.sleep(0.01)
    assert progress(services, claim) == 1
    assert "Panic" in caplog.text


def test_a_hang_ends_the_process_though_its_report_fails(hasty, claim, monkeypatch, caplog) -> None:
    ended = threading.Event()

    def broken(self):
        raise Panic

    monkeypatch.setattr(Lease, "fail_as_hung", broken)
    with hold(hasty, claim, on_hang=ended.set):
        assert ended.wait(10)
    assert "Panic" in caplog.text


def test_waiting_for_the_database_at_the_commit_is_no_hang(services, hasty, claim) -> None:
    ended = threading.Event()
    real = hasty.database

    class Away:
        """A database that cannot be reached for a while, five times as long as a hang."""

        since = time.monotonic()

        def __getattr__(self, name):
            return getattr(real, name)

        def transact(self, work):
            if time.monotonic() - self.since < 1:
                raise Unreachable("the database is away")
            return real.transact(work)

    hasty.__dict__["database"] = Away()
    with hold(hasty, claim, on_hang=ended.set) as lease:
        lease.commit_one([made(claim)])
    assert not ended.is_set()
    assert status(services, claim) == "succeeded"
