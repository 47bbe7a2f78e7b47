"""A home that moves, is copied, is backed up while it works, and is restored elsewhere."""

import json
import shutil
import signal
import sys

import pytest

from tests.e2e.test_life import SMALL_PICTURES, write_pictures

pytestmark = [pytest.mark.xdist_group("e2e"), pytest.mark.slow]


@pytest.fixture
def working(machine, tmp_path):
    """A machine with a model, a job's samples, and a training that takes longer than the test."""
    machine.do("up", "--detach")
    machine.do("dataset", "add", "shades", write_pictures(tmp_path / "shades"), "--size", "16")
    train = ("enqueue", "train", "vae", "--dataset", "shades", *SMALL_PICTURES)
    machine.do(*train, "--name", "shades", "--max-steps", "20", "--wait")
    machine.samples = machine.do("enqueue", "generate", "shades", "--count", "50", "--wait")
    machine.training = machine.do(*train, "--name", "long", "--max-seconds", "25")
    machine.until("a training", lambda: status_of(machine, machine.training) == "running")
    return machine


def status_of(machine, job: str) -> str:
    return json.loads(machine.do("job", "show", job, "--json"))["status"]


@pytest.mark.timeout(600)
def test_moved_backed_up_at_work_and_restored(working, tmp_path):
    working.do("backup", tmp_path / "backup")
    assert status_of(working, working.training) == "running"
    working.do("down")

    working.home.rename(tmp_path / "moved")
    working.move(tmp_path / "moved")
    assert f"copied or moved from {tmp_path / 'home'}" in working.status()["broker"]
    waiting = working.do("enqueue", "generate", "shades", "--count", "5")
    working.do("up", "--detach")
    working.do("job", "wait", waiting, working.training)
    working.do("artifact", "verify", working.samples)
    working.do("artifact", "reproduce", working.samples, "17")
    working.do("down")

    working.move(tmp_path / "restored")
    working.do("restore", tmp_path / "backup")
    assert status_of(working, working.training) in {"queued", "running"}
    working.do("up", "--detach")
    working.do("job", "wait", working.training)
    working.do("artifact", "verify", working.samples)
    assert working.genmill("job", "show", waiting).code == 4


@pytest.mark.timeout(600)
def test_a_copy_talks_to_no_process_of_the_original(working, tmp_path):
    original = working.home
    working.do("down")
    shutil.copytree(original, tmp_path / "copy")
    working.do("up", "--detach")
    working.move(tmp_path / "copy")
    told = working.genmill("doctor", "--check", "broker", "--json")
    assert told.code == 1
    assert f"copied or moved from {original}" in told.json[0]["found"]
    assert not working.status()["running"]
    assert working.genmill("worker").code == 3
    job = working.do("enqueue", "generate", "shades", "--count", "5")
    working.do("up", "--detach")
    working.do("job", "wait", job)

    working.move(original)
    assert status_of(working, working.training) in {"running", "succeeded"}
    assert working.genmill("job", "show", job).code == 4
    working.do("down")
    working.move(tmp_path / "copy")
    assert working.status()["running"]


@pytest.mark.timeout(600)
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills a child with its parent")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_nothing_of_the_demo_runs_on_however_it_ends(machine, number):
    machine.move(machine.folder / "genmill-demo" / "home")
    demo = machine.start("demo")
    machine.until_ready()
    assert len(machine.processes()) > 5
    demo.send_signal(number)
    code = demo.wait(timeout=90)
    assert code == (-number if number == signal.SIGKILL else 130)
    machine.until("no process left", lambda: not machine.processes())
