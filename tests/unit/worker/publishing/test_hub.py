"""The layout of the Hugging Face hub: in a folder, and pushed to a hub by its own library."""

import hashlib
import json

import pytest

from db.errors import NotFound, Refused
from tests.receivers import VARIABLES, HubServer, running
from worker.publishing import open_target
from worker.publishing.access.hf_repository import Files
from worker.publishing.base import Delivery, Item, ItemRefused, TargetAway
from worker.publishing.hub import Hub

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
            [place] = target.put_all([delivery(1, sample=False)])
            target.finish()
            assert list(target.list()) == [place]
            assert target.fetch(place) == hub.files["file1.json"] == b"1"
        assert b"pipeline_tag: image" in hub.files["README.md"]


class Memory(Files):
    """A repository without a server, which counts what it is asked."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.commits: list[str] = []
        self.reads: list[str] = []

    def __str__(self) -> str:
        return "hf://ann/digits"

    def write(self, files, *, why):
        self.files |= files
        self.commits.append(why)

    def read(self, name):
        self.reads.append(name)
        if name not in self.files:
            raise NotFound(name)
        return self.files[name]

    def remove(self, names, *, why):
        for name in names:
            del self.files[name]
        self.commits.append(why)

    def names(self):
        return sorted(self.files)


def opened(memory: Memory, address: str) -> Hub:
    hub = Hub(Hub.parse({"address": address}), {})
    hub.__dict__["_files"] = memory
    return hub


def of_version(version: int, data: bytes, name: str = "model.safetensors") -> Delivery:
    key = f"models/digits/{version}/{name}"
    item = Item(key, "event", hashlib.sha256(data).hexdigest(), "x", model=f"digits:{version}")
    return Delivery(item, data, {"model": f"digits:{version}"})


@pytest.mark.parametrize(
    "endpoint", ["http://canary.example.org", "https://ann:canary@h", "canary", "ftp://canary"]
)
def test_an_endpoint_that_others_could_read_along_is_refused(endpoint, monkeypatch):
    with pytest.raises(Refused) as raised:
        Hub.parse({"address": "hf://ann/cats", "endpoint": endpoint})
    assert "canary" not in str(raised.value)
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", endpoint)  # HF_ENDPOINT is read at import
    with pytest.raises(Refused), Hub(Hub.parse({"address": "hf://ann/cats"}), {}):
        pass


def test_the_metadata_keep_nothing_of_the_last_sample_that_was_taken_down(tmp_path):
    with open_target("hub", {"address": str(tmp_path)}, {}) as target:
        [place] = target.put_all([delivery(1)])
        target.finish()
        target.take_down(place)
        target.finish()
    assert (tmp_path / "metadata.jsonl").read_text() == ""
    left = [each.name for each in tmp_path.rglob("*") if each.is_file()]
    assert sorted(left) == ["README.md", "metadata.jsonl"]


def test_a_repository_takes_one_version_and_gives_up_only_that():
    memory = Memory()
    hub = opened(memory, "hf://ann/digits")
    [first] = hub.put_all([of_version(1, b"one")])
    [second] = hub.put_all([of_version(2, b"two")])
    assert isinstance(second, ItemRefused)
    assert "models/digits/1" in str(second)
    # as is done with what was begun and may be there
    hub.take_down(hub.locate(of_version(2, b"two").item))
    assert hub.fetch(first) == b"one"
    hub.take_down(first)
    assert memory.files == {}
    assert hub.put_all([of_version(2, b"two")]) == ["models/digits/2/model.safetensors"]
    assert memory.files["model.safetensors"] == b"two"


def test_a_version_s_own_readme_is_not_the_card():
    memory = Memory()
    hub = opened(memory, "hf://ann/digits")
    [place] = hub.put_all([of_version(1, b"of the model", "README.md")])
    hub.finish()
    assert hub.fetch(place) == b"of the model"
    assert memory.files["README.md"].startswith(b"---")
    hub.take_down(place)
    assert sorted(memory.files) == ["README.md"]


def test_records_are_not_read_again_and_a_chunk_is_taken_down_in_one_commit():
    memory = Memory()
    with opened(memory, "hf://datasets/ann/cats") as hub:
        hub.put_all([delivery(1), delivery(2)])
        hub.finish()
    hub = opened(memory, "hf://datasets/ann/cats")  # that of another shard
    places = hub.put_all([delivery(3), delivery(4)])
    hub.finish()
    assert set(memory.reads) == {"metadata.jsonl"}
    lines = memory.files["metadata.jsonl"].splitlines()
    assert [json.loads(line)["label"] for line in lines] == ["cat"] * 4
    assert b"| digits:1 | 4 |" in memory.files["README.md"]
    memory.commits.clear()
    hub.take_down_all(places)
    assert memory.commits == ["Take down 2 items"]
    assert len(list(hub.list())) == 2
