"""Profiles: built-in ones, and those of users' files."""

import pytest

from db.errors import BadInput, Refused
from worker.mark_profile import BUILT_IN, Profile
from worker.marks.profiles import complete, is_same, looked_up, purposes, read_profile
from worker.media import find_medium

IMAGE = find_medium("image")


@pytest.fixture
def write(tmp_path):
    def written(text, name="house.toml"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return written


def test_a_built_in_profile_is_completed_with_every_setting():
    found = complete(Profile(name="cn-gb45438"), IMAGE)
    assert found.marks == ("aigc", "record", "visible_label")
    assert found.settings["aigc"] == {"producer": "genmill", "propagator": ""}
    assert complete(found, IMAGE) == found
    assert purposes(found) == set()
    assert complete(Profile(name="none"), IMAGE) is None


def test_a_file_adds_to_a_built_in_profile(write):
    path = write(
        'name = "house"\nlike = "cn-gb45438"\nmarks = ["licence", "iptc"]\n'
        '[licence]\ncopyright = "© 2026 Example Ltd"\n[visible_label]\nshare = 0.1\n'
    )
    found = complete(Profile(name=str(path)), IMAGE)
    assert found.name == "house"
    assert set(found.marks) == {*BUILT_IN["cn-gb45438"], "licence", "iptc"}
    assert found.settings["licence"]["copyright"] == "© 2026 Example Ltd"
    assert found.settings["visible_label"]["share"] == 0.1
    assert found.settings["iptc"] == {"source": "trainedAlgorithmicMedia"}


def test_a_file_without_a_name_gives_its_own(write):
    assert read_profile(write('marks = ["iptc"]')).name == "house"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "it has no marks; list some of"),
        ("marks = 3", "`marks` is a list"),
        ('marks = ["iptv"]', "did you mean 'iptc'"),
        ('marks = ["iptc"]\nlike = "eu"', "no built-in profile 'eu'"),
        ('marks = ["iptc"]\nname = "none"', "is the name of a built-in profile"),
        ('marks = ["iptc"]\nname = "a b"', "'a b' cannot be the name"),
        ('marks = ["iptc"]\nlicense = "MIT"', "has no key 'license'"),
        ('marks = ["iptc"]\n[licence]\ncopyright = "x"', "has no key 'licence'"),
        ('marks = ["iptc"]\niptc = 3', "iptc is 3, not a table"),
        ("marks = [", "is not TOML"),
        pytest.param(f"marks = {'[' * 5000}", "is not TOML", id="nested without end"),
        pytest.param(f"marks = {'9' * 5000}", "is not TOML", id="thousands of digits"),
    ],
)
def test_a_wrong_file_is_refused_by_name_with_what_is_allowed(write, text, told):
    path = write(text)
    with pytest.raises(BadInput) as refused:
        read_profile(path)
    assert str(path) in str(refused.value)
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('marks = ["iptc"]\n[iptc]\nsource = "human"', "mark iptc: source: "),
        ('marks = ["iptc"]\n[iptc]\nsort = "x"', "mark iptc has no parameter 'sort'"),
        ('marks = ["licence"]', "give at least one of copyright"),
        ('marks = ["licence"]\n[licence]\nlicence_url = "ftp://x"', "use an address: https"),
        ('marks = ["licence"]\n[licence]\ncopyright = "a\\nb"', "use one line"),
        ('marks = ["visible_label"]\n[visible_label]\nshare = 0.01', "share: "),
    ],
)
def test_a_wrong_setting_is_refused_by_name(write, text, told):
    with pytest.raises(Refused, match=told):
        complete(Profile(name=str(write(text))), IMAGE)


def test_a_name_that_is_none_is_refused_with_those_there_are():
    with pytest.raises(Refused, match=r"no profile of marks 'eu-art5'.*eu-art50.*or give a file"):
        looked_up(Profile(name="eu-art5"))


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(BadInput, match=r"gone\.toml"):
        looked_up(Profile(name=str(tmp_path / "gone.toml")))


def test_a_request_is_the_same_if_it_means_the_stored_marks(write):
    stored = complete(Profile(name=str(write('marks = ["aigc"]\naigc = {producer = "a"}'))), IMAGE)
    assert is_same(None, stored)
    assert is_same(stored, stored)
    assert not is_same(Profile(name="none"), stored)
    assert not is_same(Profile(name="cn-gb45438"), stored)
    assert is_same(Profile(name="none"), None)
    changed = write('marks = ["aigc"]\naigc = {producer = "b"}')
    assert not is_same(Profile(name=str(changed)), stored)
