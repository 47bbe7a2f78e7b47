"""A schedule that retrains the champion, and the way back to the version before, by commands."""

import json
import re

import pytest

pytestmark = [pytest.mark.xdist_group("e2e"), pytest.mark.slow]

SMALL = [f"--set={pair}" for pair in ("layers=1", "heads=2", "width=16", "context=16")]


def write_tale(path, hero: str) -> None:
    path.write_text("".join(f"{hero} went {n} steps into the wood.\n" for n in range(150)), "utf-8")


def test_a_schedule_retrains_the_champion_and_an_alias_leads_back(machine, tmp_path):
    def shown(*words):
        return json.loads(machine.do(*words, "--json"))

    def meant() -> tuple[int, str]:
        """What the bare name means, and why."""
        (model,) = shown("model", "list")
        return model["version"], model["means"]

    machine.do("up", "--detach")
    write_tale(tmp_path / "tale.txt", "The fox")
    machine.do("dataset", "add", "tale", tmp_path / "tale.txt")
    train = ("enqueue", "train", "gpt", "--dataset", "tale", "--name", "teller", *SMALL)
    machine.do(*train, "--max-steps", "10", "--wait")
    assert meant() == (1, "newest")
    machine.do("model", "alias", "teller:1", "--as", "champion", "--why", "the first")
    assert meant() == (1, "champion")

    machine.do(
        *("schedule", "add", "often", "--cron", "* * * * * *", "--only-if-new-data", "--"),
        *("enqueue", "finetune", "teller@champion", "--dataset", "tale", "--max-steps", "5"),
    )
    listed = machine.do("schedule", "list")
    assert "teller@champion" in listed
    assert re.search(r"in \d+ s|\d+ s ago", listed)
    fired = machine.until(
        "a retraining",
        lambda: [run for run in shown("schedule", "show", "often")["runs"] if run["job"]],
    )
    machine.do("job", "wait", fired[0]["job"])
    write_tale(tmp_path / "more.txt", "The bear")
    machine.do("dataset", "update", "tale", tmp_path / "more.txt")
    machine.until(
        "one for the new data",
        lambda: len([run for run in shown("schedule", "show", "often")["runs"] if run["job"]]) > 1,
    )
    machine.do("schedule", "pause", "often")
    (paused,) = shown("schedule", "list")
    assert (paused["paused"], paused["next_due"]) == (True, None)
    jobs = machine.do("job", "list", "--schedule", "often", "-q").split()
    machine.do("job", "wait", *jobs)

    model = shown("model", "show", "teller:3")
    assert (model["parent"], model["dataset"]) == ("teller:1", "tale:2")
    assert meant() == (1, "champion")  # a schedule moves no alias by itself
    machine.do("model", "alias", "teller:3", "--as", "champion", "--why", "knows the bear")
    assert meant() == (3, "champion")
    machine.do("model", "rollback", "teller", "--why", "the fox was better")
    assert meant() == (1, "champion")
    machine.do("model", "alias", "teller@champion", "--remove")
    assert meant() == (3, "newest")
    told = [(entry["outcome"], entry["version"]) for entry in shown("model", "history", "teller")]
    assert told == [("removed", None), ("rolled back", 1), ("set", 3), ("set", 1)]
