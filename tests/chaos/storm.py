"""Faults, one after another; the seed decides which and on what."""

import os
import random
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import redis
from kombu.exceptions import OperationalError
from sqlalchemy import select, text

from db.errors import Refused, Unreachable
from db.states import FINAL
from db.tables import Job, Shard, Worker
from tests.chaos.system import Outage, Supervised, System
from tests.integration.test_faults import children
from tests.servers import autocommitting
from worker.broker.app import QUEUE, TASK, celery_app

GARBAGE: list[dict[str, object]] = [
    {"args": ["../../etc/passwd"]},
    {"args": ["01a203d4-cc8f-7501-9719-6017283c9be0"]},
    {"args": [], "kwargs": {"shard_id": 1, "more": 2}},
    {"args": [None]},
    {"args": [{"$ne": ""}]},
    {"args": ["\0" * 5000]},
    {"args": [[["deep"] * 50] * 50]},
]
RAW = [b"", b"{", b"[]", b'{"body": 1}', b"\xff\xfe\x00", b'"' + b"x" * 10_000 + b'"']
MAX_CANCELLED = 15
END_CONNECTIONS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


class Storm:
    """Injects faults into a system; `cancelled` holds the jobs that it cancelled in time.

    `outage` takes the store away until the function that it returns is called.
    """

    def __init__(self, system: System, seed: int, outage: Outage) -> None:
        self.system = system
        self.store_is_there = threading.Event()
        self.store_is_there.set()
        self._outage = outage
        self.random = random.Random(seed)
        self.cancelled: set[str] = set()
        self.struck: list[str] = []
        self._faults: dict[Callable[[], None], int] = {
            self.kill_worker: 3,
            self.kill_group: 3,
            self.kill_child: 2,
            self.freeze_worker: 3,
            self.freeze_child: 2,
            self.drain: 3,
            self.drain_then_kill: 1,
            self.flush: 3,
            self.restart_broker: 2,
            self.cut_connections: 2,
            self.kill_scheduler: 2,
            self.freeze_scheduler: 1,
            self.ring_twice: 4,
            self.ring_garbage: 2,
            self.push_garbage: 1,
            self.cancel: 3,
            self.retry: 2,
            self.hold_up_database: 2,
            self.take_store_away: 2,
        }

    def strike(self) -> str:
        """Inject the next fault of the seed; return its name."""
        (fault,) = self.random.choices(list(self._faults), list(self._faults.values()))
        # the broker may be down just now, the database or the store away, and nothing left to retry
        with suppress(redis.RedisError, OperationalError, Unreachable, Refused):
            fault()
        self.struck.append(fault.__name__)
        return fault.__name__

    def kill_worker(self) -> None:
        self._signal(self._worker(), signal.SIGKILL, whole=False)

    def kill_group(self) -> None:
        self._signal(self._worker(), signal.SIGKILL)

    def kill_child(self) -> None:
        self._signal_child(self._worker(), signal.SIGKILL)

    def freeze_worker(self) -> None:
        """Freeze a worker until another has taken its lease, then let it go on as a zombie."""
        worker = self._worker()
        self._signal(worker, signal.SIGSTOP)
        self._thaw(worker)

    def freeze_child(self) -> None:
        """Freeze a worker's child while its parent goes on."""
        worker = self._worker()
        self._signal_child(worker, signal.SIGSTOP)
        self._thaw(worker)

    def drain(self) -> None:
        self._signal(self._worker(), signal.SIGTERM, whole=self.random.random() < 0.5)

    def drain_then_kill(self) -> None:
        worker = self._worker()
        self._signal(worker, signal.SIGTERM, whole=False)
        pid = worker.process and worker.process.pid
        self.system.later(self.random.uniform(0, 0.5), lambda: self._kill_if(worker, pid))

    def flush(self) -> None:
        self.system.redis().flushall()

    def restart_broker(self) -> None:
        """Stop the broker for up to three seconds; it comes back empty."""
        with self.system.lock:
            self.system.broker.end()
        self.system.later(self.random.uniform(0, 3), self._broker_is_due)

    def cut_connections(self) -> None:
        self.system.redis().execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    def kill_scheduler(self) -> None:
        self._signal(self.random.choice(self.system.schedulers), signal.SIGKILL)

    def freeze_scheduler(self) -> None:
        scheduler = self.random.choice(self.system.schedulers)
        self._signal(scheduler, signal.SIGSTOP)
        self._thaw(scheduler)

    def ring_twice(self) -> None:
        """Send duplicate doorbells for shards in any state."""
        with self.system.services.database.read() as session:
            ids = list(session.scalars(select(Shard.id).order_by(Shard.id)))
        for shard_id in self.random.choices(ids, k=4):
            self._send(args=[shard_id])
            self._send(args=[shard_id])

    def ring_garbage(self) -> None:
        for words in self.random.sample(GARBAGE, 3):
            self._send(**words)
        app = celery_app(self.system.settings)
        app.send_task("os.system", args=["true"], queue=QUEUE, retry=False)

    def push_garbage(self) -> None:
        """Push bytes that are not a message into the queue itself."""
        self.system.redis().lpush("genmill:genmill", self.random.choice(RAW))

    def cancel(self) -> None:
        with self.system.services.database.read() as session:
            live = select(Job.id).where(Job.status.not_in(FINAL), Job.kind == "generate")
            ids = list(session.scalars(live.order_by(Job.id)))
        if not ids or len(self.cancelled) >= MAX_CANCELLED:
            return
        job_id = self.random.choice(ids)
        if self.system.cancel(job_id):
            self.cancelled.add(job_id)

    def retry(self) -> None:
        """Retry a job that was cancelled: what is left of it becomes a new job."""
        if self.cancelled:
            self.system.retry(self.random.choice(sorted(self.cancelled)))

    def hold_up_database(self) -> None:
        """Lock SQLite for up to three seconds, or end every connection to PostgreSQL."""
        url = self.system.services.database.url
        if url.get_backend_name() == "postgresql":
            with autocommitting(url) as connection:
                connection.execute(text(END_CONNECTIONS))
            return
        other = sqlite3.connect(str(url.database), isolation_level=None, check_same_thread=False)
        other.execute("PRAGMA busy_timeout = 5000")
        other.execute("BEGIN IMMEDIATE")
        self.system.later(self.random.uniform(0.5, 3), other.close)

    def take_store_away(self) -> None:
        """Take the store away for up to three seconds."""
        if not self.store_is_there.is_set():
            return
        self.store_is_there.clear()
        give_back = self._outage()

        def end() -> None:
            give_back()
            self.store_is_there.set()

        self.system.later(self.random.uniform(0.5, 3), end)

    def _worker(self) -> Supervised:
        """A worker, one with a running shard if possible."""
        for _ in range(50):
            busy = self._busy()
            if busy:
                return self.random.choice(busy)
            time.sleep(0.1)
        return self.random.choice(self.system.workers)

    def _busy(self) -> list[Supervised]:
        with self.system.services.database.read() as session:
            owners = select(Shard.owner).where(Shard.status == "running")
            pids = set(session.scalars(select(Worker.pid).where(Worker.boot_id.in_(owners))))
        return [kept for kept in self.system.workers if kept.process and kept.process.pid in pids]

    def _signal(self, kept: Supervised, number: signal.Signals, *, whole: bool = True) -> None:
        with self.system.lock:
            kept.signal(number, whole=whole)

    def _signal_child(self, kept: Supervised, number: signal.Signals) -> None:
        with self.system.lock, suppress(FileNotFoundError, ProcessLookupError):
            for child in children(kept.process.pid) if kept.process else []:
                os.kill(child, number)

    def _thaw(self, kept: Supervised) -> None:
        lease_s = self.system.settings.lease_s
        pause_s = self.random.uniform(1.2 * lease_s, 3 * lease_s)
        self.system.later(pause_s, lambda: kept.signal(signal.SIGCONT))

    def _kill_if(self, kept: Supervised, pid: int | None) -> None:
        if kept.process is not None and kept.process.pid == pid:
            kept.signal(signal.SIGKILL)

    def _broker_is_due(self) -> None:
        self.system.broker.due_at = 0.0

    def _send(self, **words: object) -> None:
        celery_app(self.system.settings).send_task(TASK, queue=QUEUE, retry=False, **words)
