import json
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr

from db.errors import Refused, Unreachable
from worker.settings import Settings, read_settings


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """An environment in which nothing of Genmill is set, and no `.env`."""
    for name in Settings.model_fields:
        monkeypatch.delenv(f"GENMILL_{name.upper()}", raising=False)
    monkeypatch.chdir(tmp_path)
    return monkeypatch


def test_everything_lies_under_the_home_where_nothing_is_set(bare, tmp_path):
    bare.setenv("GENMILL_HOME", str(tmp_path / "home"))
    settings = read_settings()
    assert settings.database == f"sqlite:///{tmp_path}/home/genmill.db"
    assert settings.store == (tmp_path / "home" / "store").as_uri()
    with pytest.raises(Unreachable, match="genmill up"):
        _ = settings.broker


def test_an_empty_variable_is_as_good_as_none(bare):
    unset = Settings(_env_file=None)
    for name in Settings.model_fields:
        bare.setenv(f"GENMILL_{name.upper()}", "")
    assert read_settings() == unset
    assert unset.home.is_absolute()


def test_an_empty_variable_takes_precedence_over_the_env_file(bare, tmp_path):
    (tmp_path / ".env").write_text("GENMILL_MARKS=eu-art50\n")
    assert read_settings().marks == "eu-art50"
    bare.setenv("GENMILL_MARKS", "")
    assert read_settings().marks == "none"


def test_a_socket_s_url_is_spelled_for_celery_and_for_redis(bare):
    settings = Settings(redis_url="unix://:word@/run/redis.sock")
    assert settings.broker.celery_url == "redis+socket://:word@/run/redis.sock?virtual_host=0"
    assert settings.broker_client == "unix://:word@/run/redis.sock?db=0"


def test_a_wrong_setting_is_named_with_its_value(bare):
    bare.setenv("GENMILL_LEASE_S", "soon")
    with pytest.raises(Refused, match=r"lease_s: .*'soon'"):
        read_settings()


def test_passwords_do_not_show_in_what_is_printed(bare):
    settings = Settings(database_url="postgresql://ann:secret@db/x", redis_url="redis://:secret@r")
    assert "secret" not in f"{settings} {settings!r}"


def test_a_child_process_reads_the_same_settings_whatever_its_env_file_says(bare, tmp_path):
    (tmp_path / ".env").write_text("GENMILL_STORE_URL=s3://other/place\nGENMILL_LEASE_S=7\n")
    settings = Settings(
        _env_file=None, home=tmp_path / "home", redis_url=SecretStr("redis://:word@r/0"), lease_s=3
    )
    program = (
        "import json; from worker.settings import read_settings; s = read_settings(); "
        "print(json.dumps([str(s.home), s.broker_client, s.store_url, s.lease_s, s.threads]))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", program],
        env=settings.child_environment(threads=2),
        capture_output=True,
        check=True,
    )
    assert json.loads(done.stdout) == [
        str(tmp_path / "home"),
        "redis://:word@r:6379/0",
        None,
        3.0,
        2,
    ]


@pytest.mark.parametrize(
    "url",
    [
        "word",
        "http://:secret@r",
        "redis://:secret@r:port/0",
        "redis://:secret@r/zero",
        "redis://:secret",
        "redis://u:sec@ret@r/0",
    ],
)
def test_a_url_that_is_no_broker_is_refused_without_its_password(bare, url):
    with pytest.raises(Refused, match="GENMILL_REDIS_URL") as refusal:
        _ = Settings(redis_url=url).broker
    assert "secret" not in str(refusal.value)


def test_every_setting_says_what_it_is():
    fields = Settings.model_fields
    assert [name for name, field in fields.items() if not field.description] == []


def test_a_wrong_device_gets_a_rule_that_people_can_read(bare):
    bare.setenv("GENMILL_DEVICE", "tpu")
    with pytest.raises(Refused, match=r"device: use auto, cpu, cuda or cuda:0 .got .tpu."):
        read_settings()


def test_an_env_file_that_is_not_utf_8_is_refused_with_the_place(bare, tmp_path):
    (tmp_path / ".env").write_bytes(b"GENMILL_HOME=caf\xe9\n")
    with pytest.raises(Refused, match="not UTF-8: byte 0xe9 at offset 16"):
        read_settings()
