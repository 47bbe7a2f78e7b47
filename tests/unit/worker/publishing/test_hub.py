"""The layout of the Hugging Face hub: in a folder, and pushed to a hub by its own library."""

import hashlib
import json
import logging
from functools import partial

import pytest

from db.errors import NotFound, Refused
from tests.receivers import VARIABLES, HubServer, InFolder, blob_id, running
from worker.log import set_up_logging
from worker.publishing import open_target
from worker.publishing.access import public_files, renewed
from worker.publishing.access.hf_repository import Files, Listing, Outdated
from worker.publishing.base import Delivery, Item, ItemRefused, Presence, TargetAway
from worker.publishing.hub import PER_FOLDER, Hub
from worker.settings import Settings

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


@pytest.mark.slow
def test_no_request_to_the_hub_is_logged(capsys, monkeypatch):
    """Addresses may be signed, and an answer's first line may repeat anything."""
    monkeypatch.setattr(logging.root, "handlers", [])
    monkeypatch.setattr(logging.root, "level", logging.root.level)
    set_up_logging(Settings(log_level="info"))
    with running(HubServer()) as hub:
        given = {"address": hub.address, "endpoint": f"http://127.0.0.1:{hub.port}"}
        with open_target("hub", given, {"token": "env:TARGET_PASSWORD"}) as target:
            [place] = target.put_all([delivery(1)])
            target.fetch(place)
    assert str(hub.port) not in capsys.readouterr().err


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


@pytest.mark.parametrize("record", ["[" * 100_000, "[1]", "null", '{"label": "\\ud800"}'])
def test_a_record_that_somebody_else_has_written_holds_up_no_other_item(tmp_path, record):
    with open_target("hub", {"address": str(tmp_path)}, {}) as target:
        [ours, theirs] = target.put_all([delivery(1), delivery(2)])
    (tmp_path / "records" / f"{theirs}.json").write_text(record)
    with open_target("hub", {"address": str(tmp_path)}, {}) as target:
        target.finish()
        (tmp_path / "metadata.jsonl").write_text(record)
        assert target.compare(delivery(1)) is Presence.ALTERED
        target.finish()
    lines = (tmp_path / "metadata.jsonl").read_text().splitlines()
    assert [json.loads(line)["file_name"] for line in lines] == [ours, theirs]


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

    is_atomic = True

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.commits: list[str] = []
        self.reads: list[str] = []

    def __str__(self) -> str:
        return "hf://ann/digits"

    def write(self, files, *, why, after=None):
        self._commit(why, after)
        self.files |= files

    def read(self, name):
        self.reads.append(name)
        if name not in self.files:
            raise NotFound(name)
        return self.files[name]

    def remove(self, names, *, why, after=None):
        self._commit(why, after)
        for name in names:
            del self.files[name]

    def listing(self):
        versions = {name: blob_id(data) for name, data in self.files.items()}
        return Listing(versions, str(len(self.commits)))

    def holds(self, listing, name, data):
        return listing.versions.get(name) == blob_id(data)

    def _commit(self, why, after):
        if after is not None and after.commit != str(len(self.commits)):
            raise Outdated("another commit came before")
        self.commits.append(why)


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


@pytest.fixture
def server():
    with running(HubServer()) as found:
        yield found


def pushing(server: HubServer, **more) -> Hub:
    given = {"address": server.address, "endpoint": f"http://127.0.0.1:{server.port}", **more}
    target = open_target("hub", given, {"token": "env:TARGET_PASSWORD"})
    assert isinstance(target, Hub)
    return target


def once_at(server: HubServer, end: str, act) -> None:
    """Have something done when the next request comes whose path has this end."""
    acts = [act]

    def before(path: str) -> None:
        if path.endswith(end) and acts:
            acts.pop()()

    server.before = before


def test_of_two_versions_pushed_at_once_a_repository_takes_one(server):
    server.repository = "ann/digits"
    with pushing(server) as one, pushing(server) as two:
        results = []
        once_at(
            server, "/commit/main", lambda: results.extend(two.put_all([of_version(2, b"two")]))
        )
        [refused] = one.put_all([of_version(1, b"one")])
        assert isinstance(refused, ItemRefused)
        assert "holds models/digits/2" in str(refused)
        assert results == ["models/digits/2/model.safetensors"]
        assert two.fetch(results[0]) == server.files["model.safetensors"] == b"two"
        assert list(one.list()) == results


def test_what_two_workers_push_at_once_is_described_whole(server):
    with pushing(server) as one, pushing(server) as two:
        one.put_all([delivery(1)])

        def put_and_finish() -> None:
            two.put_all([delivery(2)])
            two.finish()

        once_at(server, "/commit/main", put_and_finish)
        one.finish()
        two.take_down(two.locate(delivery(2).item))
        once_at(server, "/commit/main", lambda: one.put_all([delivery(3)]))
        two.finish()
    lines = server.files["metadata.jsonl"].splitlines()
    assert [json.loads(line)["file_name"][-5:] for line in lines] == ["1.png", "3.png"]
    assert b"| digits:1 | 2 |" in server.files["README.md"]


def test_in_a_folder_the_last_description_is_of_all_items(tmp_path, monkeypatch):
    one, two = (opened_folder(tmp_path) for _ in range(2))
    one.put_all([delivery(1)])
    write, acts = public_files.write, []

    def interrupted(root, key, data):
        if key == "metadata.jsonl" and acts:
            acts.pop()()
        write(root, key, data)

    def put_and_finish() -> None:
        two.put_all([delivery(2)])
        two.finish()

    monkeypatch.setattr(public_files, "write", interrupted)
    acts.append(put_and_finish)
    one.finish()
    assert len((tmp_path / "metadata.jsonl").read_text().splitlines()) == 2


def opened_folder(path) -> Hub:
    target = open_target("hub", {"address": str(path)}, {})
    assert isinstance(target, Hub)
    return target


def test_a_hub_that_never_answers_is_away_after_the_target_s_time(server):
    once_at(server, "/commit/main", lambda: setattr(server, "silent", True))
    with pushing(server, timeout_s=0.3) as hub:
        with pytest.raises(TargetAway, match="does not answer"):
            hub.put_all([delivery(1)])
        server.silent = False


def test_the_library_s_session_waits_as_before_and_its_bugs_are_told(server, monkeypatch):
    from huggingface_hub import HfApi, get_session

    before = get_session().timeout
    with pushing(server, timeout_s=7) as hub:
        waited = []
        server.before = lambda path: waited.append(get_session().timeout)
        hub.put_all([delivery(1)])
        assert {each.read for each in waited} == {7}
        assert get_session().timeout == before

        def failing(error, cause):
            def fail(self, *given, **named):
                raise error from cause

            return fail

        for error, cause, raised in (
            (NotImplementedError("no"), None, NotImplementedError),
            (RecursionError("deep"), TimeoutError(), RecursionError),
            (RuntimeError("a bug"), KeyError("x"), RuntimeError),
            (RuntimeError("an upload"), ConnectionError(), TargetAway),
            (RuntimeError("Internal error: Mutex poisoned"), None, RuntimeError),
            (RuntimeError("Task error: Data integrity error: hash"), None, RuntimeError),
        ):
            monkeypatch.setattr(HfApi, "create_commit", failing(error, cause))
            with pytest.raises(raised):
                hub.put_all([delivery(2)])


def test_a_call_that_the_library_refuses_is_a_bug_and_no_answer(server):
    """As an answer, it would be tried again for ever."""
    with pushing(server) as hub, pytest.raises(ValueError, match="commit_message"):
        hub._files.write({"a": b"a"}, why="")


SIGNED = "https://cas.example.org/xorbs/1?X-Amz-Signature=canary"
OF_XET = {  # errors as hf_xet 1.8 raises them, and what is told
    ConnectionError(
        f"Network error: Request middleware error: error sending request for url {SIGNED}"
    ): "network error",
    ConnectionError(
        f"Server error: HTTP status server error (503 Service Unavailable), {SIGNED}"
    ): "answered with 503",
    TimeoutError(f"Timeout: {SIGNED}"): "timeout",
    PermissionError("Authentication error: token refresh failed"): "authentication error",
    RuntimeError(f"Previous task error: Network error: dns {SIGNED}"): "network error",
    RuntimeError(
        f"Task error: Rate limited: HTTP status client error (429 Too Many), {SIGNED}"
    ): "429",
}


@pytest.mark.parametrize("error", OF_XET, ids=lambda each: str(each)[:30])
def test_an_upload_that_fails_for_the_network_is_no_item_s_fault(error, server, monkeypatch):
    from huggingface_hub import HfApi

    def fail(self, *given, **named):
        raise error

    monkeypatch.setattr(HfApi, "create_commit", fail)
    with pushing(server) as hub, pytest.raises(TargetAway, match=OF_XET[error]) as raised:
        hub.put_all([delivery(1)])
    assert "canary" not in str(raised.value)


def test_what_a_killed_worker_had_repaired_is_described_anew(server):
    line = b'{"file_name": "data/0199c0de/000000001.png", "label": "dog"}\n'
    with pushing(server) as hub:
        [place] = hub.put_all([delivery(1)])
        hub.finish()
    server.change("metadata.jsonl", line)
    with pushing(server) as hub:
        hub.put_all([delivery(1)])  # and is killed
    with pushing(server) as hub:
        hub.finish([place])
        assert hub.compare(delivery(1)) is Presence.UNCHANGED


@pytest.fixture(params=["folder", "server"])
def repository(request, tmp_path):
    """Where a hub's files come to lie, and how the target is opened."""
    if request.param == "folder":
        receiver = InFolder(tmp_path / "hub")
        return receiver, partial(opened_folder, receiver.folder)
    receiver = request.getfixturevalue("server")
    return receiver, partial(pushing, receiver)


def test_what_somebody_changed_in_a_repository_is_seen_and_repaired(repository):
    receiver, target = repository
    wanted, name = delivery(1), "000000001.png"
    line = b'{"file_name": "data/0199c0de/000000001.png", "label": "dog"}\n'
    for end, content, found in (
        (f"data/0199c0de/{name}", b"defaced", Presence.ALTERED),
        (f"data/0199c0de/{name}", None, Presence.MISSING),
        (f"{name}.json", None, Presence.ALTERED),
        ("metadata.jsonl", line, Presence.ALTERED),
    ):
        with target() as hub:
            assert hub.put_all([wanted]) == [hub.locate(wanted.item)]
            hub.finish()
        receiver.change(end, content)
        with target() as hub:
            assert hub.compare(wanted) is found
            hub.put_all([wanted])
            hub.finish()
        with target() as hub:
            assert hub.compare(wanted) is Presence.UNCHANGED


def test_what_is_changed_while_items_are_compared_is_seen(repository, monkeypatch):
    monkeypatch.setattr(renewed, "SHARE", 0)
    receiver, target = repository
    with target() as hub:
        hub.put_all([delivery(number) for number in range(3)])
        hub.finish()
    with target() as hub:
        assert hub.compare(delivery(0)) is Presence.UNCHANGED
        receiver.change("data/0199c0de/000000001.png", None)
        assert hub.compare(delivery(1)) is Presence.MISSING
        assert hub.compare(delivery(2)) is Presence.UNCHANGED
        receiver.change("metadata.jsonl", b"")
        assert hub.compare(delivery(2)) is Presence.ALTERED


def test_files_are_listed_again_after_a_commit_alone(server, monkeypatch):
    monkeypatch.setattr(renewed, "SHARE", 0)
    asked = []
    with pushing(server) as hub:
        hub.put_all([delivery(number) for number in range(3)])
        server.before = asked.append
        for number in range(3):
            hub.compare(delivery(number))
    assert sum("/tree/" in path for path in asked) == 1


def test_no_folder_has_more_files_than_the_hub_takes(tmp_path):
    hub = opened_folder(tmp_path)
    numbers = (7, PER_FOLDER - 1, PER_FOLDER, 3 * PER_FOLDER + 1)
    places = hub.put_all([delivery(each) for each in numbers])
    assert [each.removeprefix("data/0199c0de/") for each in places] == [
        *("000000007.png", "000004999.png"),
        *("00001/000005000.png", "00003/000015001.png"),
    ]
    hub.finish()
    assert sorted(hub.list()) == sorted(places)
    lines = (tmp_path / "metadata.jsonl").read_text().splitlines()
    assert {json.loads(line)["file_name"] for line in lines} == set(places)


def test_a_licence_that_would_break_the_card_is_refused():
    with pytest.raises(Refused, match=r"as in cc-by-4\.0"):
        Hub.parse({"address": "hf://ann/cats", "license": "mine\nlicense: other"})


def test_lines_of_the_metadata_may_hold_any_character(tmp_path):
    odd = delivery(1)
    odd = Delivery(odd.item, odd.data, odd.record | {"prompt": "a\u2028b\x85c\x1cd"})
    with opened_folder(tmp_path) as hub:
        hub.put_all([odd])
        hub.finish()
    with opened_folder(tmp_path) as hub:
        assert hub.compare(odd) is Presence.UNCHANGED
