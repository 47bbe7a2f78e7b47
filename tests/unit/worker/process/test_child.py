"""A worker's child: what its boot and its presence do with trouble.

Each runs in a process of its own, for a child forks, takes over signals and signals its parent.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from db import workers
from db.session import Database

ROOT = Path(__file__).parents[4]
SHARD = "01a203d4-cc8f-7501-9719-6017283c9be0"

BOOT = """
import json, os, signal, sys
from celery.exceptions import Reject
from db import errors
from worker.engine import device
from worker.process.child import Child
from worker.settings import Settings
from worker.shared_memory import SharedState

def broken(wanted):
    raise getattr(errors, sys.argv[2], RuntimeError)("the device is broken")

if sys.argv[2] != "none":
    device.pick_device = broken
told = []
signal.signal(signal.SIGTERM, lambda *_: told.append("SIGTERM"))
shared = SharedState()
child = Child(Settings(_env_file=None, home=sys.argv[1]), shared)
if sys.argv[2] == "none":
    shared.drain()
pid = os.fork()
if pid == 0:
    child.begin()
    try:
        child.work(sys.argv[3])
    except Reject as rejected:
        os._exit(10 + rejected.requeue)
    os._exit(0)
_, status = os.waitpid(pid, 0)
how = {"told": told, "failed": shared.boot_failed, "refused": shared.refused}
print(json.dumps(how | {"child": os.waitstatus_to_exitcode(status)}))
"""


def run(program, *arguments):
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(
        command, cwd=ROOT, timeout=120, check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout), done.stderr


@pytest.mark.parametrize(("error", "refused"), [("RuntimeError", False), ("Refused", True)])
def test_a_boot_that_fails_ends_the_worker_and_returns_the_doorbell(
    tmp_path, error, refused
) -> None:
    how, said = run(BOOT, tmp_path, error, SHARD)
    assert how == {"told": ["SIGTERM"], "failed": True, "refused": refused, "child": 11}
    assert said.count("\n") == 1
    assert "the worker cannot start" in said
    assert "the device is broken" in said


def test_a_draining_worker_returns_the_doorbell(tmp_path) -> None:
    how, _ = run(BOOT, tmp_path, "none", SHARD)
    assert how["child"] == 11


def test_leftovers_that_cannot_be_removed_do_not_stop_a_boot(tmp_path) -> None:
    (tmp_path / "work/work-of-others/.lock").mkdir(parents=True)
    how, said = run(BOOT, tmp_path, "none", SHARD)
    assert (how["failed"], how["child"]) == (False, 11)
    assert "work-of-others" in said


def test_a_worker_without_a_folder_to_work_in_does_not_start(tmp_path) -> None:
    (tmp_path / "work").touch()
    how, said = run(BOOT, tmp_path, "none", SHARD)
    assert (how["told"], how["failed"], how["refused"]) == (["SIGTERM"], True, False)
    assert f"{tmp_path}/work cannot be written to" in said


PRESENCE = """
import json, os, sys, time
from db.errors import Unreachable
from db.session import Database
from worker.process import child as module
from worker.settings import Settings
from worker.shared_memory import SharedState

module.MAX_BEAT_S = 0.05
class Panic(BaseException):
    pass

troubles = [OSError("disk"), KeyError("key"), RuntimeError("surprise"), SystemExit(1), Panic()]
replies = [Unreachable("the reply was lost"), None, *troubles]
transact = Database.transact

def unsteady(self, work):
    done = transact(self, work)
    if replies and (trouble := replies.pop(0)):
        raise trouble
    return done

Database.transact = unsteady
child = module.Child(
    Settings(_env_file=None, home=sys.argv[1], database_url=sys.argv[2]), SharedState()
)
if os.fork() == 0:
    child.begin()
    while replies:
        time.sleep(0.01)
    time.sleep(0.5)
    print(json.dumps(child._presence.is_alive()), flush=True)
    os._exit(0)
os.wait()
"""


def test_a_worker_stays_present_after_a_lost_reply_and_any_error(tmp_path, database_url) -> None:
    alive, said = run(PRESENCE, tmp_path, database_url)
    assert alive is True, said
    assert "Panic" in said
    database = Database(database_url)
    with database.read() as session:
        (worker,) = workers.live(session, within_s=60)
        assert worker.heartbeat_at > worker.started_at
    database.dispose()
