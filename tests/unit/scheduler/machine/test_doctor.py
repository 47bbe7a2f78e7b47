import os
import socket

import pytest

from db import setbacks, workers
from db.errors import Refused
from db.setbacks import Failure
from scheduler.dispatch.loop import touch_scheduler_file
from scheduler.machine.doctor import examine
from worker.services import Services
from worker.settings import Settings
from worker.store.base import Limit
from worker.store.folder import FolderStore


def examined(settings: Settings) -> dict[str, dict]:
    return {check["check"]: check for check in examine(settings)}


def test_a_new_home_is_told_how_to_begin(tmp_path, monkeypatch):
    monkeypatch.delenv("GENMILL_TEST_DATABASE", raising=False)
    found = examined(Settings(_env_file=None, home=tmp_path / "home", redis_url=None))
    wrong = {name for name, check in found.items() if not check["ok"]}
    assert wrong == {"database", "broker", "workers"}
    assert all("genmill up" in found[name]["remedy"] for name in wrong)
    assert not (tmp_path / "home" / "genmill.db").exists()


def test_all_is_well_where_everything_answers(tmp_path, database_url, broker_url, monkeypatch):
    monkeypatch.delenv("GENMILL_TEST_DATABASE", raising=False)
    settings = Settings(
        _env_file=None, home=tmp_path / "home", database_url=database_url, redis_url=broker_url
    )
    services = Services(settings)
    with services.database.write() as session:
        workers.start(session, boot_id="b", host=socket.gethostname(), pid=7, device="cuda:0 H200")
    services.close()
    found = examined(settings)
    assert [check for check in found.values() if not check["ok"]] == []
    assert "cuda:0 H200" in found["workers"]["found"]


def test_a_misspelt_variable_is_told_with_the_nearest_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GENMILL_TEST_DATABASE", raising=False)
    monkeypatch.setenv("GENMILL_DATABSE_URL", "postgresql://ann:secret@db/x")
    monkeypatch.setenv("GENMILL_HOME", str(tmp_path / "home"))
    (tmp_path / ".env").write_text("genmill_shards=3\nOTHER_LEASE=3\nGENMILL_LEASE_S=9\n")
    found = examined(Settings(home=tmp_path / "home"))["settings"]
    assert not found["ok"]
    assert "no GENMILL_ setting 'DATABSE_URL' (did you mean 'DATABASE_URL'?)" in found["found"]
    assert "no GENMILL_ setting 'SHARDS' (did you mean 'SHARD_S'?)" in found["found"]
    assert not any(other in found["found"] for other in ("secret", "LEASE", "HOME"))
    (tmp_path / ".env").unlink()
    monkeypatch.delenv("GENMILL_DATABSE_URL")
    assert examined(Settings(home=tmp_path / "home"))["settings"]["ok"]


@pytest.mark.parametrize(
    ("change", "check", "says"),
    [
        ({"database_url": "postgresql://ann:secret@127.0.0.1:1/x"}, "database", "127.0.0.1:1"),
        ({"redis_url": "redis://:secret@127.0.0.1:1/0"}, "broker", "127.0.0.1:1"),
        ({"store_url": "file:///dev/null/store"}, "store", "/dev/null/store"),
    ],
)
def test_what_does_not_answer_is_named_without_its_password(tmp_path, change, check, says):
    found = examined(Settings(_env_file=None, home=tmp_path / "home", **change))
    assert not found[check]["ok"]
    assert says in found[check]["found"]
    assert "secret" not in str(found)


@pytest.mark.parametrize(
    ("limit", "ok"),
    [
        (Limit("no conditional put", "a key is looked up", covered=True), True),
        (Limit("no list", "nothing is removed"), False),
    ],
)
def test_what_the_store_lacks_is_told_with_what_follows(tmp_path, monkeypatch, limit, ok):
    monkeypatch.setattr(FolderStore, "limits", lambda _: [limit])
    (found,) = examine(Settings(_env_file=None, home=tmp_path / "home"), ["store"])
    assert found["ok"] == ok
    assert str(limit) in found["found"]
    assert bool(found["remedy"]) != ok


def test_a_database_of_another_version_is_told(tmp_path, database_url):
    settings = Settings(_env_file=None, home=tmp_path, database_url=database_url)
    services = Services(settings)
    with services.database.connect() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    services.close()
    assert "newer" in examined(settings)["database"]["found"]


def test_a_home_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").touch()
    found = examined(Settings(_env_file=None, home=tmp_path / "file" / "home"))
    assert not found["home"]["ok"]
    assert "GENMILL_HOME" in found["home"]["remedy"]


def test_a_scheduler_is_healthy_without_a_live_worker(tmp_path, database_url, broker_url):
    settings = Settings(
        _env_file=None, home=tmp_path / "home", database_url=database_url, redis_url=broker_url
    )
    touch_scheduler_file(settings)
    checks = examine(settings, ["scheduler", "database", "broker"])
    assert [check["check"] for check in checks] == ["scheduler", "database", "broker"]
    assert all(check["ok"] for check in checks)


def test_a_scheduler_that_hangs_is_told(tmp_path):
    settings = Settings(_env_file=None, home=tmp_path / "home")
    assert examined(settings)["scheduler"]["ok"]  # none runs here
    touch_scheduler_file(settings)
    assert examined(settings)["scheduler"]["ok"]
    os.utime(settings.scheduler_file, (0, 0))
    found = examined(settings)["scheduler"]
    assert not found["ok"]
    assert "genmill scheduler" in found["remedy"]


def test_what_fails_for_long_is_told_with_its_reason(tmp_path, database_url, monkeypatch):
    monkeypatch.setattr("scheduler.machine.doctor.MAX_SETBACK_S", -1)
    settings = Settings(_env_file=None, home=tmp_path, database_url=database_url)
    assert examine(settings, ["setbacks"])[0]["ok"]
    services = Services(settings)
    failures = {f"schedule-{n}": Failure("KeyError: 'labels'", True, 5, 60) for n in range(7)}
    with services.database.write() as session:
        setbacks.note(session, "firing schedules", failures)
    services.close()
    [found] = examine(settings, ["setbacks"])
    assert not found["ok"]
    assert "firing schedules fails for schedule-0 since " in found["found"]
    assert found["found"].endswith("KeyError: 'labels'; 2 more")


def test_a_check_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(Refused, match=r"no check 'scheduller'.*did you mean 'scheduler'"):
        examine(Settings(_env_file=None, home=tmp_path), ["scheduller"])
