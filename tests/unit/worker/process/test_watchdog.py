"""What the watchdog ends; each test runs it in a process of its own, because it ends processes."""

import subprocess
import sys
from pathlib import Path

import redis

ROOT = Path(__file__).parents[4]

PROGRAM = """
import os, subprocess, sys, threading, time
from worker.broker.channel import Channel
from worker.settings import Settings
from worker.process.watchdog import Watchdog
from worker.shared_memory import SharedState

shared = SharedState()
stuck = os.fork()
if stuck == 0:
    shared.pulse()
    time.sleep(50 if sys.argv[3] == "stuck" else 0)
    os._exit(0)
if sys.argv[3] == "gone":
    os.waitpid(stuck, 0)
settings = Settings(_env_file=None, redis_url=sys.argv[1], hang_s=float(sys.argv[2]))
class Panic(BaseException):
    pass

troubles = [OSError("disk"), KeyError("key"), RuntimeError("surprise"), SystemExit(1), Panic()]

def unsteady(look):
    def try_to_look(self):
        if troubles:
            raise troubles.pop()
        look(self)
    return try_to_look

if name := sys.argv[4]:
    setattr(Watchdog, name, unsteady(getattr(Watchdog, name)))
def listen():
    while True:
        Channel.heard_at = time.monotonic()
        time.sleep(0.05)

if sys.argv[5] == "hears":
    threading.Thread(target=listen, daemon=True).start()
Watchdog(settings, shared, period_s=0.05, idle_s=0.3).start()
if sys.argv[3] == "gone":
    time.sleep(20)
_, status = os.waitpid(stuck, 0)
os._exit(os.waitstatus_to_exitcode(status) % 256)
"""


def watch(broker_url, *, hang_s, child="stuck", unsteady="", hears=False):
    """Run a watchdog over a child that is `stuck` or `gone`; returns the process's exit code.

    Its method `unsteady` raises errors of five types first; `hears`: messages are read all along.
    """
    ear = "hears" if hears else ""
    command = [sys.executable, "-c", PROGRAM, broker_url, str(hang_s), child, unsteady, ear]
    return subprocess.run(command, cwd=ROOT, timeout=60, check=False).returncode


def test_a_child_without_a_pulse_is_killed(broker_url) -> None:
    assert watch(broker_url, hang_s=0.3) == 256 - 9


def test_an_idle_worker_beside_a_full_queue_ends_to_be_restarted(broker_url) -> None:
    redis.Redis.from_url(broker_url).lpush("genmill:genmill", "a doorbell that no worker takes")
    assert watch(broker_url, hang_s=60) == 75


def test_a_worker_that_reads_what_is_no_doorbell_is_not_deaf(broker_url) -> None:
    redis.Redis.from_url(broker_url).lpush("genmill:genmill", "more than it can read")
    assert watch(broker_url, hang_s=2, hears=True) == 256 - 9  # no earlier than its child hangs


def test_a_child_that_is_gone_already_does_not_end_the_watch(broker_url) -> None:
    redis.Redis.from_url(broker_url).lpush("genmill:genmill", "a doorbell that no worker takes")
    assert watch(broker_url, hang_s=0.1, child="gone") == 75


def test_any_error_of_its_own_leaves_the_watchdog_watching(broker_url) -> None:
    assert watch(broker_url, hang_s=0.3, unsteady="_check_child") == 256 - 9
    redis.Redis.from_url(broker_url).lpush("genmill:genmill", "a doorbell that no worker takes")
    assert watch(broker_url, hang_s=60, unsteady="_check_queue") == 75
