"""A `.env` is obeyed only where nobody else can have written it."""

import logging
import os
from pathlib import Path

import pytest

from worker import environment
from worker.environment import database_url
from worker.settings import Settings, env_file_line, read_settings, settings_given


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A working folder whose `.env` names another home."""
    for name in Settings.model_fields:
        monkeypatch.delenv(f"GENMILL_{name.upper()}", raising=False)
    folder = tmp_path / "project"
    folder.mkdir(mode=0o755)
    monkeypatch.chdir(folder)
    (folder / ".env").write_text("GENMILL_HOME=elsewhere\nGENMILL_LEASE_S=7\nOTHER=1\n")
    (folder / ".env").chmod(0o644)
    return folder


def by_another_user(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() == 0:
        os.chown(path, 4321, 4321)
    else:  # who is another user is a question of who asks
        monkeypatch.setattr(environment.os, "geteuid", lambda: 4321)


FAULTS = {
    "the file is another user's": lambda p, m: by_another_user(p / ".env", m),
    "the folder is another user's": by_another_user,
    "the group can write to the file": lambda p, m: (p / ".env").chmod(0o664),
    "everybody can write to the file": lambda p, m: (p / ".env").chmod(0o606),
    "the group can write to the folder": lambda p, m: p.chmod(0o775),
    "everybody can write to the folder": lambda p, m: p.chmod(0o1777),
}


def test_one_s_own_is_read(project, caplog):
    settings = read_settings()
    assert (settings.home, settings.lease_s) == (Path("elsewhere"), 7)
    assert caplog.messages == [f"settings from {project / '.env'}: GENMILL_HOME, GENMILL_LEASE_S"]


@pytest.mark.parametrize("fault", FAULTS)
def test_one_that_others_could_have_written_is_not_read_and_that_is_said(
    project, caplog, monkeypatch, fault
):
    FAULTS[fault](project, monkeypatch)
    with caplog.at_level(logging.WARNING):
        settings = read_settings()
    assert settings.home != Path("elsewhere")
    assert settings.lease_s == 60
    (line,) = caplog.messages
    assert f"{project / '.env'} is not read: " in line
    assert "chmod go-w" in line
    assert settings_given() == {}


def test_a_link_to_another_s_is_not_read(project, tmp_path, monkeypatch):
    (project / ".env").rename(tmp_path / "theirs")
    (tmp_path / "theirs").chmod(0o666)
    (project / ".env").symlink_to(tmp_path / "theirs")
    assert read_settings().lease_s == 60


def test_the_quick_way_to_the_database_does_not_pass_by(project):
    assert database_url() is None  # so the settings are read, and checked
    (project / ".env").chmod(0o666)
    assert database_url() is None


def test_what_it_gives_is_told_with_its_path_but_not_what_the_environment_gives(
    project, monkeypatch
):
    file = project / ".env"
    monkeypatch.setenv("GENMILL_THREADS", "2")
    assert settings_given() == {"HOME": file, "LEASE_S": file, "THREADS": None}
    assert env_file_line() == f"settings from {file}: GENMILL_HOME, GENMILL_LEASE_S"
    monkeypatch.setenv("GENMILL_HOME", "/mine")
    monkeypatch.setenv("GENMILL_LEASE_S", "")
    assert settings_given() == {"HOME": None, "THREADS": None}
    assert env_file_line() is None


def test_one_that_gives_nothing_is_not_told_of(project, caplog):
    (project / ".env").write_text("OTHER=1\nGENMILL_HOME=\n")
    read_settings()
    assert caplog.messages == []


def test_its_names_do_not_drive_the_terminal(project):
    (project / ".env").write_text("GENMILL_\x1b]0;mine\x07=1\n")
    assert (env_file_line() or "").isprintable()
