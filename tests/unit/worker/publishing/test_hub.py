"""The layout of the Hugging Face hub: in a folder, and pushed to a hub by its own library."""

import hashlib
import json

import pytest

from tests.receivers import VARIABLES, HubServer, running
from worker.publishing import open_target
from worker.publishing.base import Delivery, Item, ItemRefused, TargetAway

RECORD = {"model": "digits:1", "weights_sha256": "0" * 64, "label": "cat", "sampling": {"n": 1}}


def delivery(number: int, *, sample: bool = True) -> Delivery:
    data = b"%d" % number
    key = f"0199c0de/{number:09d}.png" if sample else f"models/digits/1/file{number}.json"
    digest = hashlib.sha256(data).hexdigest()
    item = Item(key, f"event-{number}", digest, "image/png", sample=number if sample else None)
    return Delivery(item, data, RECORD if sample else RECORD | {"pipeline_tag": "image"})


@pytest.fixture(autouse=True)
def secrets(monkeypatch) -> None:
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)


def test_a_folder_has_the_layout_that_datasets_reads(tmp_path):
    with open_target("hub", {"address": str(tmp_path), "license": "cc0-1.0"}, {}) as target:
        places = target.put_all([delivery(1), delivery(2)])
        target.finish()
        assert list(target.list()) == places
        target.take_down(places[0])
        target.finish()
    lines = (tmp_path / "metadata.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {
            "file_name": "data/0199c0de/000000002.png",
            "model": "digits:1",
            "weights_sha256": "0" * 64,
            "label": "cat",
        }
    ]
    card = (tmp_path / "README.md").read_text()
    assert "license: cc0-1.0" in card
    assert "| digits:1 | 1 |" in card


@pytest.mark.slow
def test_items_are_pushed_in_one_commit_and_described_in_another():
    with running(HubServer()) as hub:
        given = {"address": hub.address, "endpoint": f"http://127.0.0.1:{hub.port}"}
        with open_target("hub", given, {"token": "env:TARGET_PASSWORD"}) as target:
            places = target.put_all([delivery(1), delivery(2)])
            target.finish()
            assert [target.fetch(place) for place in places] == [b"1", b"2"]
            assert hub.commits == ["Publish 2 items", "Describe what is published"]
            [unfit] = target.put_all([delivery(3, sample=False)])
            assert isinstance(unfit, ItemRefused)
            target.take_down(places[0])
            target.take_down(places[0])
            assert list(target.list()) == [places[1]]
            hub.stop()
            with pytest.raises(TargetAway):
                target.fetch(places[1])
        assert hub.refused == 0


@pytest.mark.slow
def test_files_of_a_model_lie_where_the_hub_has_them():
    with running(HubServer()) as hub:
        hub.repository = "ann/digits"
        given = {"address": hub.address, "endpoint": f"http://127.0.0.1:{hub.port}"}
        with open_target("hub", given, {"token": "env:TARGET_PASSWORD"}) as target:
            assert target.put_all([delivery(1, sample=False)]) == ["file1.json"]
            target.finish()
        assert b"pipeline_tag: image" in hub.files["README.md"]
