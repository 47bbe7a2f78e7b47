import os
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from db.columns import new_id
from db.errors import Refused, Unreachable
from scheduler.machine.broker import (
    MAX_SOCKET_BYTES,
    find_server,
    ping,
    prepare_broker,
)
from worker.broker.app import QUEUE, TASK, celery_app
from worker.settings import Settings


def settings_of(home: Path) -> Settings:
    return Settings(_env_file=None, home=home, redis_url=None)


@contextmanager
def running(settings: Settings) -> Iterator[None]:
    broker = prepare_broker(settings)
    process = subprocess.Popen(
        [broker.server, "-"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    process.stdin.write(broker.configuration)
    process.stdin.close()
    while not _answers(settings):
        time.sleep(0.02)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def _answers(settings: Settings) -> bool:
    try:
        return bool(ping(settings))
    except Unreachable:  # its socket is there a moment before it listens
        return False


@pytest.fixture
def short_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose socket's path is short enough, with every sign that a URL could trip over."""
    return tmp_path_factory.mktemp("h") / "a b%41#?ü"


def test_celery_and_redis_reach_the_broker_whatever_the_home_is_called(short_home):
    settings = settings_of(short_home)
    with running(settings):
        assert ping(settings).split()[0] in {"valkey", "redis"}
        app, shard_id = celery_app(settings), new_id()
        app.send_task(TASK, args=[shard_id], queue=QUEUE)
        with app.connection_for_read() as connection:
            queue = connection.SimpleQueue(QUEUE)
            assert queue.get(timeout=60).payload[0] == [shard_id]
            queue.close()


def test_a_home_with_a_long_path_gets_a_socket_elsewhere(tmp_path):
    settings = settings_of(tmp_path / ("x" * 150))
    with running(settings):
        socket = Path(settings.broker.socket)
        assert ping(settings)
    assert len(os.fsencode(socket)) <= MAX_SOCKET_BYTES
    assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
    socket.parent.rmdir()


def test_the_url_with_its_password_is_for_the_owner_alone(tmp_path):
    settings = settings_of(tmp_path)
    broker = prepare_broker(settings)
    assert stat.S_IMODE(settings.broker_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(settings.broker_file.parent.stat().st_mode) == 0o700
    assert broker.password == settings.broker.password


def test_the_password_stays_the_same_from_start_to_start(tmp_path):
    assert prepare_broker(settings_of(tmp_path)) == prepare_broker(settings_of(tmp_path))


def test_a_wrong_password_is_refused_and_not_shown(short_home):
    settings = settings_of(short_home)
    with running(settings):
        wrong = settings.broker_client.replace(prepare_broker(settings).password, "guessed")
        settings.broker_file.write_text(wrong)
        with pytest.raises(Unreachable, match="refuses the password") as refused:
            ping(settings)
    assert "guessed" not in str(refused.value)


def test_a_broker_that_does_not_run_is_unreachable(tmp_path):
    settings = settings_of(tmp_path)
    with pytest.raises(Unreachable, match="genmill up"):
        ping(settings)
    prepare_broker(settings)
    with pytest.raises(Unreachable, match="does not answer"):
        ping(settings)


def test_a_home_that_cannot_be_made_is_refused_with_the_remedy(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(Refused, match="GENMILL_HOME"):
        prepare_broker(settings_of(tmp_path / "file" / "home"))


def test_a_server_is_found_on_every_machine():
    assert os.access(find_server(), os.X_OK)
