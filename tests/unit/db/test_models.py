"""Models, their versions and aliases, and what a reference means."""

import pytest

from db import models
from db.errors import NotFound, Refused


def add(record, name="digits", family="gan", **options):
    rest = {"params": {"width": 8}, "files": {}, "weights_sha256": "a" * 64, "metrics": {}}
    return record.run(models.add_version, name=name, family=family, **(rest | options))


def number(record, reference):
    return record.run(models.resolve, reference)[1].number


def test_versions_are_numbered_from_one(record):
    assert [add(record).number for _ in range(3)] == [1, 2, 3]
    model = record.run(models.get, "digits")
    assert [version.number for version in record.run(models.versions, model)] == [1, 2, 3]
    assert model.family == "gan"


def test_a_name_belongs_to_one_family(record):
    add(record)
    with pytest.raises(Refused, match="of family 'gan', not 'vae'"):
        add(record, family="vae")


def test_a_version_names_its_parent(record):
    first = add(record)
    second = add(record, parent_id=first.id)
    assert record.run(models.version, second.id).parent_id == first.id


def test_a_bare_name_is_the_newest_until_there_is_a_champion(record):
    first = add(record)
    add(record)
    assert number(record, "digits") == 2
    model = record.run(models.get, "digits")
    record.run(models.set_alias, model, "champion", first)
    assert number(record, "digits") == 1
    assert number(record, "digits@champion") == 1
    assert number(record, "digits@latest") == 2
    assert number(record, "digits:2") == 2


def test_an_alias_moves(record):
    first, second = add(record), add(record)
    model = record.run(models.get, "digits")
    record.run(models.set_alias, model, "champion", first)
    record.run(models.set_alias, model, "champion", second)
    assert record.run(models.aliases, model) == {"champion": 2}


@pytest.mark.parametrize("alias", ["latest", "3"])
def test_an_alias_that_means_a_version_already_is_refused(record, alias):
    version = add(record)
    with pytest.raises(Refused, match="cannot be an alias"):
        record.run(models.set_alias, record.run(models.get, "digits"), alias, version)


def test_an_alias_stands_for_a_version_of_its_own_model(record):
    add(record)
    stranger = add(record, name="faces")
    with pytest.raises(Refused, match="not a version of model 'digits'"):
        record.run(models.set_alias, record.run(models.get, "digits"), "champion", stranger)


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("digit", "no model 'digit' .did you mean 'digits'"),
        ("digits:9", "model 'digits' has no version '9'; known: 1"),
        ("digits:one", "no version 'one'"),
        ("digits:1@champion", "no model 'digits:1'"),
        ("digits@champio", "model 'digits' has no alias 'champio' .did you mean 'champion'"),
    ],
)
def test_an_unknown_reference_gets_the_nearest_spelling(record, reference, says):
    version = add(record)
    record.run(models.set_alias, record.run(models.get, "digits"), "champion", version)
    with pytest.raises(NotFound, match=says):
        record.run(models.resolve, reference)


def test_models_are_listed_by_name(record):
    for name in ("zebra", "ant"):
        add(record, name=name)
    assert [model.name for model in record.run(models.listing)] == ["ant", "zebra"]


def test_an_unknown_version_id_is_not_found(record):
    with pytest.raises(NotFound):
        record.run(models.version, "nope")
