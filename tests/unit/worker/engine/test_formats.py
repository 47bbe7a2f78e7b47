"""Versions of older and newer formats: migrated, or refused in words."""

import json
import re
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from db.causes import Cause
from db.errors import BadInput, NotSupportedHere, Refused
from worker.data.dataset import Shape
from worker.engine.fitting import refuse_other_tensors
from worker.engine.weights import load, save
from worker.families import families, find_family
from worker.networks.formats import Changes, Migration
from worker.networks.version_folder import CONFIG, WEIGHTS, format_of, read_record

CPU = torch.device("cpu")
SHAPE = Shape("image", size=12, channels=1)
# in format 1 `latent` was called `codes`, there was no `hidden` but 8, and layers had other names
STEP = Migration(
    params=Changes(renamed={"codes": "latent"}, dropped=frozenset({"pace"}), then={"hidden": 8}),
    sampling=Changes(renamed={"heat": "temperature"}),
    tensors={r"^net\.": ""},
)


@pytest.fixture
def vae(monkeypatch):
    """A family that had another format before."""
    family = replace(find_family("vae"), migrations=(STEP,))
    monkeypatch.setitem(families(), "vae", family)
    return family


@pytest.fixture
def folder(tmp_path):
    """A version as it is written today."""
    return written(find_family("vae"), tmp_path / "version")


def written(family, folder):
    folder.mkdir()
    torch.manual_seed(0)
    params = family.params.model_validate({"channels": 4, "hidden": 8, "latent": 2})
    save(family.network()(params, SHAPE), folder, family=family)
    return folder


def change(folder, **changes):
    """Change the record in a folder's `config.json`; None removes a key."""
    path = folder / CONFIG
    record = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in record.items() if v is not None}))


def as_format_1(folder):
    """Write the folder as format 1 did, without a number."""
    params = read_record(folder)["params"]
    params["codes"] = params.pop("latent")
    del params["hidden"]
    change(folder, params=params | {"pace": 3}, format=None, made_by=None)
    tensors = load_file(folder / WEIGHTS)
    save_file({f"net.{name}": value for name, value in tensors.items()}, folder / WEIGHTS)


def shapes(folder):
    return {name: value.shape for name, value in load_file(folder / WEIGHTS).items()}


def test_what_is_written_states_its_format_and_who_made_it(vae, folder):
    record = read_record(folder)
    assert (record["format"], record["genmill"]) == (vae.format, 1) == (2, 1)
    assert re.match(r"genmill \d+\.\d+", record["made_by"])


def test_an_older_version_loads_as_if_it_had_been_written_today(folder, vae):
    _, wanted = load_as(folder, format=2)
    as_format_1(folder)
    assert format_of(read_record(folder)) == 1
    family, network = load(folder, device=CPU)
    assert family is vae
    assert network.params == wanted.params
    assert network.state_dict().keys() == wanted.state_dict().keys()
    refuse_other_tensors(read_record(folder), shapes(folder))


def load_as(folder, **changes):
    change(folder, **changes)
    return load(folder, device=CPU)


@pytest.mark.parametrize("changes", [{"format": 2}, {"genmill": 2}])
def test_a_newer_version_is_refused_for_this_machine_alone(folder, changes):
    with pytest.raises(NotSupportedHere, match=r"made by a newer genmill: .*; upgrade genmill"):
        load_as(folder, **changes)
    assert NotSupportedHere.cause is Cause.MACHINE


@pytest.mark.parametrize("number", [0, -1, True, "2", 1.5, None])
def test_what_is_no_number_of_a_format_is_refused(folder, number):
    config = json.loads((folder / CONFIG).read_text())
    for key in ("format", "genmill"):
        (folder / CONFIG).write_text(json.dumps(config | {key: number}))
        with pytest.raises(BadInput, match=key):
            load(folder, device=CPU)


def test_a_version_that_there_is_no_way_from_says_what_to_do(folder, monkeypatch):
    step = Migration(refusal="its layers are others", remedy="train it again on the same data")
    monkeypatch.setitem(families(), "vae", replace(find_family("vae"), migrations=(step,)))
    with pytest.raises(NotSupportedHere, match=r"others; train it again on the same data"):
        load(folder, device=CPU)


def test_parameters_of_another_genmill_are_named_with_it(folder):
    params = read_record(folder)["params"] | {"warp": 9}
    with pytest.raises(NotSupportedHere, match=r"no parameter 'warp'.* made by genmill 7; upgr"):
        load_as(folder, params=params, made_by="genmill 7")
    with pytest.raises(NotSupportedHere, match="made by another genmill; "):
        load_as(folder, made_by="\x1b[2J")


@pytest.mark.parametrize(
    ("shape", "error"), [({"media": "image"}, BadInput), ({"depth": 3}, NotSupportedHere)]
)
def test_a_shape_that_this_code_does_not_know_is_no_traceback(folder, shape, error):
    stated = shape if error is BadInput else SHAPE.to_json() | shape
    with pytest.raises(error):
        load_as(folder, shape=stated)


def test_tensors_are_compared_with_the_network_without_reading_them(folder):
    record, found = read_record(folder), shapes(folder)
    refuse_other_tensors(record, found)
    first, *others = sorted(found)
    less = {name: found[name] for name in others}
    with pytest.raises(BadInput, match=f"{re.escape(first)} is missing"):
        refuse_other_tensors(record, less)
    with pytest.raises(BadInput, match="extra is not part of it"):
        refuse_other_tensors(record, found | {"extra": (1,)})
    with pytest.raises(BadInput, match=rf"{re.escape(first)} has shape \[7\]"):
        refuse_other_tensors(record, found | {first: (7,)})


def test_steps_follow_one_another(monkeypatch):
    second = Migration(params=Changes(renamed={"latent": "dimensions"}, then={"beta": 4.0}))
    family = replace(find_family("vae"), migrations=(STEP, second))
    found = family.training_settings({"codes": 3, "pace": 1}, 1, what="it")
    assert found == {"dimensions": 3, "hidden": 8, "beta": 4.0}
    assert family.training_settings({"latent": 3}, 2, what="it", whole=False) == {"dimensions": 3}
    assert family.training_settings({"dimensions": 3}, 3, what="it") == {"dimensions": 3}
    assert family.sampling_settings({"heat": 0.5}, 1, what="it") == {"temperature": 0.5}
    with pytest.raises(Refused, match="format 4"):
        family.training_settings({}, 4, what="it")
