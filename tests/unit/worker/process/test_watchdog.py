"""What the watchdog ends, in processes of its own, for it ends processes."""

import subprocess
import sys
from pathlib import Path

import redis

ROOT = Path(__file__).parents[4]

PROGRAM = """
import os, subprocess, sys, time
from worker.settings import Settings
from worker.process.watchdog import Watchdog
from worker.shared_memory import Wire

wire = Wire()
stuck = os.fork()
if stuck == 0:
    wire.pulse()
    time.sleep(50)
    os._exit(0)
settings = Settings(_env_file=None, redis_url=sys.argv[1], hang_s=float(sys.argv[2]))
Watchdog(settings, wire, period_s=0.05, deaf_s=0.3).start()
_, status = os.waitpid(stuck, 0)
os._exit(os.waitstatus_to_exitcode(status) % 256)
"""


def watch(broker_url, *, hang_s):
    """Run a watchdog over a child that does nothing; returns how the process ended."""
    command = [sys.executable, "-c", PROGRAM, broker_url, str(hang_s)]
    return subprocess.run(command, cwd=ROOT, timeout=60, check=False).returncode


def test_a_child_that_gives_no_sign_is_killed(broker_url) -> None:
    assert watch(broker_url, hang_s=0.3) == 256 - 9


def test_an_idle_worker_beside_a_full_queue_asks_to_be_started_again(broker_url) -> None:
    redis.Redis.from_url(broker_url).lpush("genmill:genmill", "a doorbell that nobody takes")
    assert watch(broker_url, hang_s=60) == 75
