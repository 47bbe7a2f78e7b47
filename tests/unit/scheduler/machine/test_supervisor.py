"""What `genmill up` asks of services that are configured elsewhere before it starts anything."""

from urllib.parse import urlsplit

import pytest

from db.errors import Unreachable
from scheduler.machine.control import up
from worker.settings import Settings


def refusal(home, **elsewhere) -> str:
    said: list[str] = []
    settings = Settings(_env_file=None, home=home, **elsewhere)
    with pytest.raises(Unreachable) as refused:
        up(settings, say=said.append)
    assert said == []
    assert list((home / "logs").iterdir()) == []
    return str(refused.value)


def test_a_wrong_password_of_the_broker(tmp_path, broker_url):
    port = urlsplit(broker_url).port
    told = refusal(tmp_path / "home", redis_url=f"redis://:guessed@127.0.0.1:{port}/0")
    assert "refuses the password; check GENMILL_REDIS_URL" in told
    assert "guessed" not in told


def test_a_bucket_that_does_not_exist(tmp_path, s3):
    told = refusal(tmp_path / "home", store_url="s3://nowhere/x", s3_endpoint_url=s3.endpoint_url)
    assert "s3://nowhere" in told
    assert "no such bucket; create it" in told


def test_a_folder_that_cannot_hold_the_store(tmp_path):
    told = refusal(tmp_path / "home", store_url=f"file:///{'x' * 300}")
    assert "File name too long; give a shorter path" in told
