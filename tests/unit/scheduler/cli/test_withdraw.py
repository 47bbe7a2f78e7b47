"""Withdrawn items: barred from every dataset, and traced to what was made from them."""

import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from db import datasets, models


def write_pictures(folder, numbers):
    Path(folder).mkdir()
    for number in numbers:
        pixels = np.random.default_rng(number).integers(0, 255, (16, 16), np.uint8)
        Image.fromarray(pixels).save(Path(folder) / f"{number}.png")


@pytest.fixture
def faces(genmill, services):
    """Two versions, of which the second alone has picture 9, and models of each."""
    write_pictures("first", range(8))
    write_pictures("more", [9])
    assert genmill("dataset", "add", "faces", "first").out == "faces:1\n"
    assert genmill("dataset", "update", "faces", "more").out == "faces:2\n"
    with services.database.write() as session:
        for number, parent in ((1, None), (2, None), (None, 1)):
            version = datasets.resolve(session, f"faces:{number}")[1] if number else None
            models.add_version(
                session,
                name="people",
                family="gan",
                params={},
                files={},
                weights_sha256="0" * 64,
                metrics={},
                dataset_version_id=version and version.id,
                parent_id=models.versions(session, models.get(session, "people"))[1].id
                if parent
                else None,
            )


@pytest.mark.usefixtures("faces")
@pytest.mark.parametrize("by", ["file", "digest"])
def test_a_withdrawn_item_is_barred_and_traced(genmill, by):
    item = "more/9.png"
    if by == "digest":
        [row] = genmill("dataset", "diff", "faces:1", "faces:2", "--json").json["added"]
        item = row["digest"]
    told = genmill("dataset", "withdraw", "faces", item, "--dry-run", "--json").json
    assert told["versions"] == ["faces:2"]
    assert genmill("dataset", "show", "faces:2").code == 0
    done = genmill("dataset", "withdraw", "faces", item, "--reason", "asked to", "--json").json
    assert [each["version"] for each in done["retrain"]] == ["people:2", "people:3"]
    assert genmill("dataset", "show", "faces:2").code == 4
    assert genmill("dataset", "show", "faces").out.splitlines()[1].split() == ["version", "1"]


@pytest.mark.usefixtures("faces")
def test_schedules_that_would_train_on_it_again_are_paused(genmill):
    commands = {
        "fixed": "enqueue train gan --name others --dataset faces:2",
        "newest": "enqueue train gan --name people --dataset faces",
        "tuned": "enqueue finetune people:3 --dataset faces:1",
        "clean": "enqueue finetune people:1 --dataset faces",
        "samples": "enqueue generate people --count 1",  # people:3
    }
    for name, command in commands.items():
        added = genmill("schedule", "add", name, "--cron", "0 3 * * *", "--", *command.split())
        assert added.code == 0, added.err

    def paused() -> list[str]:
        listed = genmill("schedule", "list", "--json").json
        return [each["name"] for each in listed if each["paused"]]

    told = [
        {"schedule": "fixed", "uses": ["faces:2"], "paused": True},
        {"schedule": "samples", "uses": ["people:3"], "paused": False},
        {"schedule": "tuned", "uses": ["people:3"], "paused": True},
    ]
    dry = genmill("dataset", "withdraw", "faces", "more/9.png", "--dry-run", "--json").json
    assert (dry["schedules"], paused()) == (told, [])
    done = genmill("dataset", "withdraw", "faces", "more/9.png")
    assert (done.code, paused()) == (0, ["fixed", "tuned"])
    assert "fixed is paused: it would train on faces:2" in done.err
    again = genmill("dataset", "withdraw", "faces", "more/9.png", "--json").json
    assert again["schedules"] == told
    trail = genmill("audit", "--action", "paused", "--json").json
    assert [each["subject"] for each in trail] == ["tuned", "fixed"]


@pytest.mark.usefixtures("faces")
def test_what_a_withdrawal_paused_runs_again_only_if_forced(genmill):
    for name, model in (("tuned", "people:3"), ("newest", "people"), ("clean", "people:1")):
        words = ("enqueue", "finetune", model, "--dataset", "faces:1")
        assert genmill("schedule", "add", name, "--cron", "0 3 * * *", "--", *words).code == 0
    genmill("schedule", "pause", "clean")
    assert genmill("dataset", "withdraw", "faces", "more/9.png").code == 0
    for verb in ("resume", "trigger"):
        refused = genmill("schedule", verb, "tuned")
        assert (refused.code, "people:3; remove it" in refused.err) == (2, True)
        assert "--force" in refused.err
    assert genmill("schedule", "resume", "clean").out.startswith("clean  next ")
    assert genmill("schedule", "trigger", "clean").code == 0
    assert genmill("audit", "--action", "forced", "--json").json == []

    assert genmill("schedule", "trigger", "tuned", "--force").code == 0
    assert genmill("schedule", "resume", "tuned", "--force").out.startswith("tuned  next ")
    trail = genmill("audit", "--action", "forced", "--json").json
    assert [each["subject"] for each in trail] == ["tuned", "tuned"]
    assert trail[0]["detail"]["command"] == "schedule resume"
    assert trail[0]["detail"]["uses"] == ["people:3"]
    assert genmill("schedule", "trigger", "tuned").code == 0  # it is not paused any more


@pytest.mark.usefixtures("faces")
def test_a_schedule_can_be_resumed_once_its_bare_names_mean_other_data(genmill):
    words = shlex.split("enqueue train gan --name others --dataset faces")
    genmill("schedule", "add", "nightly", "--cron", "0 3 * * *", "--", *words)
    genmill("dataset", "withdraw", "faces", "first/0.png")
    assert genmill("schedule", "resume", "nightly").code == 2
    write_pictures("other", range(20, 28))
    assert genmill("dataset", "add", "faces", "other").code == 0
    assert genmill("schedule", "resume", "nightly").code == 0


@pytest.mark.usefixtures("faces")
def test_a_schedule_of_a_dataset_of_which_nothing_is_left_is_paused(genmill):
    words = shlex.split("enqueue train gan --name others --dataset faces")
    genmill("schedule", "add", "nightly", "--cron", "0 3 * * *", "--", *words)
    done = genmill("dataset", "withdraw", "faces", "first/0.png", "--json").json
    assert done["versions"] == ["faces:1", "faces:2"]
    assert done["schedules"] == [{"schedule": "nightly", "uses": ["faces"], "paused": True}]


@pytest.mark.usefixtures("faces")
def test_no_dataset_takes_a_withdrawn_item_again(genmill):
    genmill("dataset", "withdraw", "faces", "more/9.png")
    shutil.copy("more/9.png", "first/again.png")
    added = genmill("dataset", "add", "others", "first", "--json").json
    assert sum(added["counts"].values()) == 8
    [step] = [each for each in added["steps"] if each["name"] == "withdrawn"]
    assert step["rejects"] == {"it was withdrawn": 1}
    only = genmill("dataset", "update", "faces", "more")
    assert only.out == "faces:3\n" or only.code == 0
    assert sum(genmill("dataset", "show", "faces", "--json").json["counts"].values()) == 8


@pytest.mark.usefixtures("faces")
def test_what_is_withdrawn_while_files_are_read_is_not_added(genmill, monkeypatch):
    from scheduler.datasets import add

    def publish(*words):
        assert genmill("dataset", "withdraw", "faces", "more/9.png").code == 0
        return stored(*words)

    stored = add.publish
    monkeypatch.setattr(add, "publish", publish)
    shutil.copy("more/9.png", "first/again.png")
    refused = genmill("dataset", "add", "others", "first")
    assert (refused.code, "withdrawn while 'others' was read; run" in refused.err) == (2, True)
    assert genmill("dataset", "show", "others").code == 4
    monkeypatch.undo()


@pytest.mark.usefixtures("faces")
def test_whoever_uses_a_model_that_learnt_from_it_is_warned(genmill, tmp_path, caplog):
    assert genmill("target", "add", "shelf", "folder", str(tmp_path / "shelf")).code == 0
    finetune = ("enqueue", "finetune", "{}", "--dataset", "faces:1", "--dry-run")
    publish = ("publish", "{}", "--target", "shelf", "--dry-run")
    uses = (finetune, publish, ("model", "alias", "{}", "--as", "best"))

    def warnings(model, uses=uses):
        caplog.clear()
        for words in uses:
            genmill(*(word.format(model) for word in words))
        return [each.getMessage() for each in caplog.records if "withdrawn" in each.getMessage()]

    assert warnings("people:2") == []
    assert genmill("dataset", "withdraw", "faces", "more/9.png").code == 0
    told = "people:2 learnt from withdrawn data: faces:2; train it anew on other data"
    assert warnings("people:1") == []
    assert warnings("people:2") == [told] * 3
    assert warnings("people:2", [(*publish, "--take-down")]) == []


@pytest.mark.usefixtures("faces")
def test_texts_are_withdrawn_too(genmill):
    Path("a.jsonl").write_text('{"text": "one fine day"}\n{"text": "a secret of mine"}\n' * 1)
    Path("b.jsonl").write_text('{"text": "a secret of mine"}\n')
    genmill("dataset", "add", "lines", "a.jsonl")
    done = genmill("dataset", "withdraw", "lines", "b.jsonl", "--json").json
    assert (done["versions"], done["retrain"]) == (["lines:1"], [])
    added = genmill("dataset", "add", "lines", "a.jsonl", "--json").json
    assert sum(added["counts"].values()) == 1


@pytest.mark.usefixtures("faces")
def test_what_no_version_holds_is_refused_and_changes_nothing(genmill):
    for item, code in (("0" * 16, 4), ("nothing.png", 2)):
        done = genmill("dataset", "withdraw", "faces", item)
        assert done.code == code
        assert item in done.err
    assert genmill("dataset", "show", "faces:2").code == 0
