"""Specs on record of a family's older and newer formats."""

import json
from dataclasses import replace

import pytest

from db import models
from db.errors import NotSupportedHere
from scheduler.submission.pinning import pin
from scheduler.submission.requests import Preparer
from worker.families import families, find_family
from worker.networks.formats import Changes, Migration
from worker.services.prompts import load_spec
from worker.specs import parse_recorded, parse_spec

STEP = Migration(
    params=Changes(renamed={"codes": "latent"}, then={"beta": 3.0}),
    sampling=Changes(renamed={"heat": "temperature"}, then={"micro_batch": 16}),
)
GENERATE = {"kind": "generate", "model": "digits:1", "count": 3, "seed": 1}
FINETUNE = {"kind": "finetune", "model": "digits:1", "dataset": "pets:1", "seed": 1}


@pytest.fixture
def new_format(monkeypatch):
    """The family of `digits` gets another format."""
    monkeypatch.setitem(families(), "vae", replace(find_family("vae"), migrations=(STEP,)))


def pinned(services, spec):
    with services.database.read() as session:
        return pin(services, session, spec)


def test_a_row_of_the_first_format_is_as_it_always_was(services):
    for spec in (GENERATE, FINETUNE):
        assert "format" not in pinned(services, parse_spec(spec)).data


def test_settings_of_an_older_row_are_read_as_todays(services, new_format):
    found = pinned(services, load_spec(services.store, GENERATE | {"params": {"heat": 0.5}}))
    assert (found.params.temperature, found.params.micro_batch) == (0.5, 16)
    assert found.data["format"] == 2
    assert found.data["params"]["temperature"] == 0.5
    again = pinned(services, parse_recorded(found.data))
    assert again.data == found.data


def test_settings_that_a_user_gives_are_todays(services, new_format):
    found = pinned(services, parse_spec(GENERATE | {"params": {"temperature": 0.5}}))
    assert (found.params.temperature, found.params.micro_batch) == (0.5, 64)


def test_fine_tuning_inherits_from_a_version_of_an_older_format(services, new_format):
    found = pinned(services, parse_spec(FINETUNE | {"params": {"lr": 0.5}}))
    assert (found.params.latent, found.params.beta, found.params.lr) == (7, 3.0, 0.5)
    with services.database.write() as session:
        models.resolve(session, "digits:1")[1].params = {"codes": 5, "beta": 2.0}
    found = pinned(services, parse_recorded(FINETUNE | {"params": {"lr": 0.5}}))
    assert (found.params.latent, found.params.beta) == (5, 2.0)
    with services.database.write() as session:
        version = models.resolve(session, "digits:1")[1]
        version.format, version.params = 2, {"latent": 5, "beta": 2.0}
    found = pinned(services, parse_recorded(FINETUNE | {"params": {"codes": 4}}))
    assert (found.params.latent, found.params.beta) == (4, 2.0)


def test_a_job_that_waits_states_the_format_of_what_was_asked(services, new_format):
    asked = parse_spec(GENERATE | {"model": "new"})
    waiting = Preparer(services).prepare_waiting(asked, {"new": find_family("vae")})
    assert json.loads(waiting.new_job().spec)["format"] == 2


@pytest.mark.parametrize(
    "more", [{"format": 3}, {"newer": 1}, {"kind": "distil"}, {"accept": {"newer": 1}}]
)
def test_what_a_newer_genmill_has_recorded_is_left_to_it(services, new_format, more):
    with pytest.raises(NotSupportedHere, match=r"by a newer genmill.*; upgrade genmill"):
        pinned(services, parse_recorded(GENERATE | more))
