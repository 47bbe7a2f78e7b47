"""A project: trainings are stopped, put in another order, kept and taken up again, by commands."""

import json

import pytest

from tests.e2e.test_life import SMALL_PICTURES, write_pictures

pytestmark = [pytest.mark.xdist_group("e2e"), pytest.mark.slow]

ENDLESS = ("--max-steps", "1000000")


def shown(machine, job):
    return json.loads(machine.do("job", "show", job, "--json"))


def running(machine, job):
    return shown(machine, job)["progress"].get("done", 0) > 0


def train(machine, name, *budget):
    words = ("enqueue", "train", "vae", "--dataset", "shades", "--name", name, "--seed", "1")
    return machine.do(*words, *SMALL_PICTURES, *budget)


@pytest.mark.timeout(300)
def test_stop_reprioritise_retry(machine, tmp_path):
    machine.do("up", "--detach")
    machine.do("dataset", "add", "shades", write_pictures(tmp_path / "shades"), "--size", "16")

    # one runs, two wait; the last is to be next
    first = train(machine, "first", *ENDLESS)
    second = train(machine, "second", "--max-steps", "20")
    third = train(machine, "third", "--max-steps", "20")
    machine.until("steps", lambda: running(machine, first))
    assert machine.do("job", "priority", third, "10") == third
    machine.do("job", "note", first, "looks good already")
    over = machine.genmill("job", "wait", first, "--timeout", "1s")
    assert (over.code, "it goes on" in over.err) == (1, True)

    # what it has learnt becomes a version
    machine.do("job", "cancel", first, "--keep")
    machine.do("job", "wait", first, second, third)
    kept = json.loads(machine.do("model", "show", "first", "--json"))
    assert kept["metrics"]["ended_early"] is True
    assert kept["job"] == first
    assert shown(machine, first)["note"] == "looks good already"
    assert shown(machine, third)["finished_at"] < shown(machine, second)["finished_at"]
    machine.do("enqueue", "generate", "first", "--count", "3", "--wait")

    # a cancelled one goes on where it was
    fourth = train(machine, "fourth", *ENDLESS)
    machine.until("steps", lambda: running(machine, fourth))
    machine.do("job", "cancel", fourth)
    again = machine.do("job", "retry", fourth)
    machine.until("steps", lambda: running(machine, again))
    assert "resuming from the checkpoint of step" in machine.do("job", "logs", again)
    machine.do("job", "cancel", again, "--keep")
    machine.do("job", "wait", again)
    mine = json.loads(machine.do("job", "list", "--owner", "me", "--json"))
    assert {first, second, third, fourth, again} <= {job["id"] for job in mine}
    assert machine.genmill("doctor", "--audit").code == 0
