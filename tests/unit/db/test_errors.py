"""What an error says, and what it means to a caller."""

import pickle

import pytest

from db.errors import BadInput, GenmillError, NotFound, Refused, Unreachable


def test_an_error_shows_its_message_and_then_its_remedy():
    error = Unreachable("the disk is full", remedy="free some space")
    assert (error.message, error.remedy) == ("the disk is full", "free some space")
    assert str(error) == "the disk is full; free some space"


def test_an_error_without_a_message_says_what_its_type_means():
    assert str(NotFound()) == "No such thing."


def test_an_error_survives_pickling():
    error = pickle.loads(pickle.dumps(Refused("too long", remedy="shorten it")))
    assert (type(error), str(error)) == (Refused, "too long; shorten it")


@pytest.mark.parametrize(
    ("error", "code"), [(GenmillError, 1), (BadInput, 2), (Unreachable, 3), (NotFound, 4)]
)
def test_the_type_decides_the_exit_code(error, code):
    assert error().exit_code == code


def test_a_refusal_would_be_one_tomorrow_too():
    """Else `genmill up` would end because memory was short for a moment."""
    kinds = [GenmillError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    refusals = [kind for kind in kinds if kind.exit_code == Refused.exit_code]
    assert {kind.__name__ for kind in refusals if not kind.lasting} == set()


@pytest.mark.parametrize(
    ("known", "says"),
    [
        (["faces", "digits"], "no model 'digtis' (did you mean 'digits'?); known: digits, faces"),
        (["zebra"], "no model 'digtis'; known: zebra"),
        ([], "no model 'digtis'; there are none"),
    ],
)
def test_an_unknown_name_gets_the_nearest_and_the_known_ones(known, says):
    assert str(NotFound.unknown("model", "digtis", known)) == says


def test_of_many_known_names_the_first_are_shown():
    error = Refused.unknown("label", "x", map(str, range(100, 200)), of="model digits:1")
    assert error.message == "model digits:1 has no label 'x'"
    assert error.remedy.endswith("118, 119, ...")
