"""Where the database is, without reading the settings, and when they must be read."""

from pathlib import Path

import pytest

from db.errors import Refused
from worker.environment import database_url
from worker.services import open_services
from worker.settings import Settings, read_settings


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """An environment in which nothing of Genmill is set, and no `.env`."""
    for name in [*Settings.model_fields, "test_database"]:
        monkeypatch.delenv(f"GENMILL_{name.upper()}", raising=False)
    monkeypatch.chdir(tmp_path)
    return monkeypatch


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"GENMILL_HOME": "/srv/genmill"},
        {"genmill_home": "relative"},
        {"GENMILL_HOME": ""},
        {"XDG_DATA_HOME": "/data"},
        {"XDG_DATA_HOME": ""},
        {"GENMILL_DATABASE_URL": "postgresql://ann@db/x"},
        {"GENMILL_DATABASE_URL": "", "GENMILL_HOME": "/srv/genmill"},
        {"GENMILL_STORE_URL": "s3://bucket", "GENMILL_HOME": "/srv/genmill"},
    ],
    ids=str,
)
def test_the_database_is_where_the_settings_say(bare, given):
    for name, value in given.items():
        bare.setenv(name, value)
    assert database_url() == read_settings().database


def test_a_setting_that_needs_checking_or_an_env_file_sends_to_the_settings(bare, tmp_path):
    bare.setenv("GENMILL_LEASE_S", "3")
    assert database_url() is None
    bare.delenv("GENMILL_LEASE_S")
    (tmp_path / ".env").write_text(f"GENMILL_DATABASE_URL=sqlite:///{tmp_path}/other.db\n")
    assert database_url() is None
    assert open_services().database.url.database == f"{tmp_path}/other.db"


def test_settings_that_are_handed_over_win(bare, tmp_path):
    bare.setenv("GENMILL_HOME", str(tmp_path / "environment"))
    services = open_services(Settings(_env_file=None, home=tmp_path / "given"))
    assert services.database.url.database == f"{tmp_path}/given/genmill.db"


def test_a_user_without_a_folder_is_told_to_name_a_home(bare):
    def unknown(_):
        raise KeyError

    for name in ("HOME", "XDG_DATA_HOME"):
        bare.delenv(name, raising=False)
    bare.setattr("pwd.getpwuid", unknown)
    for read in (database_url, read_settings):
        with pytest.raises(Refused, match=r"has no folder for data.*set GENMILL_HOME"):
            read()
