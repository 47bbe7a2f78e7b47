"""A home that a group shares: what any of its users makes there, all of them can use."""

import os
from pathlib import Path

import pytest

from db.errors import Refused
from scheduler.cli import run
from scheduler.machine.broker import prepare_broker
from scheduler.machine.home import create_home, supervisor_lock
from worker.services.dead_workers import show_life
from worker.settings import Settings, read_settings


@pytest.fixture
def shared(tmp_path, monkeypatch):
    """A folder that an administrator has made for a group, and a umask that shuts it out."""
    for name in Settings.model_fields:
        monkeypatch.delenv(f"GENMILL_{name.upper()}", raising=False)
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(0o2770)
    monkeypatch.setenv("GENMILL_HOME", str(home))
    monkeypatch.chdir(tmp_path)
    Path("book.txt").write_text("".join(f"line {n} of a text\n" for n in range(200)))
    before = os.umask(0o077)
    yield home
    os.umask(before)


def wrong_modes(home: Path) -> list[str]:
    """What the group cannot use, or others can."""
    found = []
    for path in home.rglob("*"):
        mode = path.lstat().st_mode & 0o777
        if mode != (0o770 if path.is_dir() else 0o660):
            found.append(f"{mode:o} {path}")
    return found


def test_what_commands_make_is_the_group_s(shared, capsys):
    assert run(["db", "upgrade"]) == 0
    assert run(["dataset", "add", "book", "book.txt"]) == 0
    assert run(["job", "list"]) == 0
    assert run(["dataset", "show", "book", "--sheet", "page.txt"]) == 0
    assert {"genmill.db", "store", "cache"} <= {path.name for path in shared.iterdir()}
    assert wrong_modes(shared) == []
    assert Path("page.txt").stat().st_mode & 0o777 == 0o600  # the user's own umask
    assert os.umask(0o077) == 0o077


def test_what_up_makes_is_the_group_s(shared):
    settings = read_settings()
    create_home(settings)
    broker = prepare_broker(settings)
    with supervisor_lock(settings):
        show_life(settings.home, "0" * 36)
        assert wrong_modes(shared) == []
    assert "unixsocketperm 660" in broker.configuration.decode()
    assert all(folder.stat().st_gid == shared.stat().st_gid for folder in shared.rglob("*"))


def test_a_group_s_socket_does_not_lie_in_a_folder_of_one_user(shared, tmp_path):
    long = tmp_path / ("x" * 150)
    shared.rename(long)
    with pytest.raises(Refused, match="too long for a socket that a group shares"):
        prepare_broker(Settings(_env_file=None, home=long))


def test_doctor_names_the_group_and_does_not_call_it_open(shared, capsys):
    run(["db", "upgrade"])
    assert run(["doctor", "--check", "home"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "shared by the group" in said
    assert "open to other users" not in said


def test_a_folder_that_is_only_writable_by_a_group_is_not_shared(shared, capsys):
    shared.chmod(0o770)
    assert run(["db", "upgrade"]) == 0
    assert (shared / "genmill.db").stat().st_mode & 0o077 == 0
