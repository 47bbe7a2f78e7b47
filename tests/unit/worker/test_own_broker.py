"""A home's own broker is not taken for that of the home which it was copied or moved from."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from db.errors import Unreachable
from scheduler.machine.broker import prepare_broker
from scheduler.machine.home import copied_from
from worker.settings import Settings


def of(home: Path) -> Settings:
    return Settings(_env_file=None, home=home, redis_url=None)


@pytest.fixture
def place(tmp_path_factory) -> Path:
    """A folder with a path that is short enough for a socket."""
    return tmp_path_factory.mktemp("h")


@pytest.fixture(params=["home", "x" * 150], ids=["short", "too long for a socket"])
def settings(request, place) -> Iterator[Settings]:
    """A home in which `genmill up` has been."""
    made = of(place / request.param)
    prepare_broker(made)
    folder = Path(made.broker.socket).parent
    yield made
    if folder.parent == Path(tempfile.gettempdir()):
        folder.rmdir()


def test_a_home_has_its_own_by_whatever_path(settings, place, monkeypatch):
    (place / "link").symlink_to(settings.home)
    monkeypatch.chdir(place)
    for home in (settings.home, place / "link", Path("link"), Path(settings.home.name)):
        assert of(home).broker == settings.broker
        assert copied_from(of(home)) is None


@pytest.mark.parametrize("put", [shutil.copytree, shutil.move])
def test_a_copied_or_moved_home_has_none_until_it_starts_its_own(settings, place, put):
    password, home = settings.broker.password, settings.home
    put(home, place / "elsewhere")
    other = of(place / "elsewhere")
    with pytest.raises(Unreachable, match=r"copied or moved from .*; start its own") as raised:
        _ = other.broker
    assert str(home) in str(raised.value) or home.name != "home"
    assert password not in str(raised.value)
    prepare_broker(other)
    assert other.broker.password != password
    assert other.broker.socket == str(place / "elsewhere" / "run" / "broker.sock")
    assert copied_from(other) is None
