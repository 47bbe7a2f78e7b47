"""Which model versions would not load, as `db check` and `doctor` tell it."""

import json

import pytest

from db import models
from scheduler.models import loadable
from worker.networks.version_folder import CONFIG, WEIGHTS

CHECK = ("doctor", "--check", "models", "--json")


def set_file(services, name, data):
    """Give `digits` another file in place of its own."""
    with services.database.write() as session:
        version = models.resolve(session, "digits")[1]
        blob = services.store.put_bytes("models/blobs", data)
        version.files = version.files | {name: vars(blob)}


def record_of(services):
    with services.database.read() as session:
        key = models.resolve(session, "digits")[1].files[CONFIG]["key"]
    with services.store.open(key) as file:
        return json.loads(file.read())


def set_record(services, **changes):
    set_file(services, CONFIG, json.dumps(record_of(services) | changes).encode())


def test_versions_that_load_are_counted(genmill, loadable_digits):
    done = genmill("db", "check")
    assert (done.code, "models: 1 of 1 version would load" in done.out) == (0, True)
    assert genmill("db", "check", "--json").json["models"] == {
        "checked": 1,
        "not_checked": 0,
        "unloadable": [],
    }
    (found,) = genmill(*CHECK).json
    assert (found["ok"], found["found"]) == (True, "1 of 1 version would load")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"format": 9}, "made by a newer genmill: it has format 9"),
        ({"genmill": 9}, "made by a newer genmill: its record has format 9"),
        ({"family": "vae"}, "is of family 'vae', the model of 'gan'"),
        ({"params": {"warp": 1}}, "no parameter 'warp'"),
        ({"params": {"channels": 3}}, "channels: "),
        ({"params": []}, "no 'params'"),
        ({"shape": {}}, "shape"),
    ],
)
def test_a_record_that_cannot_be_used_is_told(genmill, services, loadable_digits, changes, says):
    set_record(services, **changes)
    done = genmill("db", "check", "--json")
    assert (done.code, done.json["ok"]) == (1, False)
    (found,) = done.json["models"]["unloadable"]
    assert found["version"] == "digits:1"
    assert says in found["found"]
    assert found["remedy"]


def test_doctor_and_an_upgrade_tell_it_too(genmill, services, loadable_digits):
    set_record(services, format=9)
    (row,) = genmill(*CHECK).json
    assert not row["ok"]
    assert "digits:1 would not load: config.json of gan was made by a newer" in row["found"]
    upgraded = genmill("db", "upgrade")
    assert (upgraded.code, "warning: digits:1 would not load" in upgraded.err) == (0, True)


def header(**tensors):
    text = json.dumps(tensors).encode()
    return len(text).to_bytes(8, "little") + text


def tensor(*shape, end):
    return {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not a safetensors file"),
        (b"x" * 100, "not a safetensors file"),
        ((9).to_bytes(8, "little") + b"[1, 2, 3]", "damaged"),
        (header(w=tensor(2, end=8)) + bytes(4), "4 bytes of tensors, but its header says 8"),
        (header(w=tensor(2, end=8)) + bytes(8), "do not fit gan as it is here"),
    ],
)
def test_weights_are_told_by_their_header(genmill, services, loadable_digits, data, says):
    set_file(services, WEIGHTS, data)
    done = genmill("db", "check")
    assert done.code == 1
    assert says in done.out
    assert "1 of 1 version would not load" in done.err


def test_a_file_that_is_not_in_the_store_or_is_cut_short_is_told(
    genmill, services, loadable_digits
):
    with services.database.read() as session:
        key = models.resolve(session, "digits")[1].files[WEIGHTS]["key"]
    path = services.settings.home / "store" / key
    path.write_bytes(path.read_bytes()[:-1])
    assert "bytes in the store" in genmill("db", "check").out
    path.unlink()
    assert "no object" in genmill("db", "check").out


def test_settings_on_record_of_a_newer_format_are_told(genmill, services, loadable_digits):
    with services.database.write() as session:
        models.resolve(session, "digits")[1].format = 4
    assert "the version was made by a newer genmill" in genmill("db", "check").out


def test_a_model_of_a_family_that_is_not_installed_is_told(genmill, services, loadable_digits):
    with services.database.write() as session:
        models.get(session, "digits").family = "gone"
    assert "no family 'gone'" in genmill("db", "check").out


def test_only_so_many_are_looked_at_and_the_rest_is_counted(
    genmill, services, loadable_digits, prose, monkeypatch
):
    monkeypatch.setattr(loadable, "LOOKED_AT", 1)
    found = genmill("db", "check", "--json").json["models"]
    assert (found["checked"], found["not_checked"]) == (1, 1)
