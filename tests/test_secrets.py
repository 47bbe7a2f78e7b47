"""Canaries: passwords and keys that must not appear anywhere but where they are configured."""

import json
import logging
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text

from db.tables import Base
from scheduler.cli import run
from tests.commands import WORDS, words_of
from tests.e2e.conftest import Machine, machine  # noqa: F401 - a fixture
from tests.servers import PASSWORD
from worker.settings import Settings

DATABASE, REDIS, KEY = "canary-of-the-database", "canary-of-redis", "canary-of-the-store"
CANARIES = (DATABASE, REDIS, KEY)
AWAY = {
    "GENMILL_DATABASE_URL": f"postgresql://ann:{DATABASE}@127.0.0.1:1/x",
    "GENMILL_REDIS_URL": f"redis://:{REDIS}@127.0.0.1:1/0",
    "GENMILL_STORE_URL": "s3://bucket/prefix",
    "GENMILL_S3_ENDPOINT_URL": "http://127.0.0.1:1",
    "AWS_ACCESS_KEY_ID": "ann",
    "AWS_SECRET_ACCESS_KEY": KEY,
}
# how people write an address wrong
WRONG = {
    "a scheme": {"GENMILL_DATABASE_URL": f"mysql://ann:{DATABASE}@h/x"},
    "a port": {"GENMILL_DATABASE_URL": f"postgresql://ann:{DATABASE}@h:port/x"},
    "an option": {"GENMILL_DATABASE_URL": f"postgresql://ann:{DATABASE}@h/x?wrong=1"},
    "an at sign": {"GENMILL_DATABASE_URL": f"postgresql://ann:{DATABASE}@x@h/x"},
    "a slash": {"GENMILL_DATABASE_URL": f"postgresql://ann:{DATABASE}/x@h/x"},
    "no scheme": {"GENMILL_DATABASE_URL": f"ann:{DATABASE}@h/x"},
    "redis, a scheme": {"GENMILL_REDIS_URL": f"amqp://:{REDIS}@r"},
    "redis, a port": {"GENMILL_REDIS_URL": f"redis://:{REDIS}@r:port/0"},
    "redis, a database": {"GENMILL_REDIS_URL": f"redis://:{REDIS}@r/zero"},
    "redis, an option": {"GENMILL_REDIS_URL": f"redis://:{REDIS}@r/0?wrong=1"},
    "redis, a number sign": {"GENMILL_REDIS_URL": f"redis://:{REDIS}#x@r/0"},
    "another setting": {"GENMILL_LEASE_S": "soon"},
}


@pytest.fixture
def desk(tmp_path, monkeypatch):
    for name in Settings.model_fields:
        monkeypatch.delenv(f"GENMILL_{name.upper()}", raising=False)
    for name, value in AWAY.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("GENMILL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GENMILL_LOG_LEVEL", "debug")
    monkeypatch.chdir(tmp_path)
    Path("book.txt").write_text("".join(f"line {n} of a text\n" for n in range(200)))
    Path("lines.jsonl").write_text('{"kind": "generate", "model": "m", "count": 1}\n')
    return tmp_path


def found_in(said: str) -> list[str]:
    return [canary for canary in CANARIES if canary in said]


@pytest.mark.parametrize("command", WORDS)
def test_no_command_prints_a_secret(desk, command, capsys, caplog):
    with caplog.at_level(logging.DEBUG):
        run(words_of(command))
    said = capsys.readouterr()
    assert found_in(said.out + said.err + caplog.text) == []


@pytest.mark.parametrize("fault", WRONG)
def test_a_setting_that_is_wrong_is_refused_without_it(desk, monkeypatch, capsys, caplog, fault):
    for name, value in WRONG[fault].items():
        monkeypatch.setenv(name, value)
    commands = (
        ["doctor"],
        ["status", "--json"],
        ["job", "list"],
        ["dataset", "add", "b", "book.txt"],
    )
    for words in commands:
        run(words)
        said = capsys.readouterr()
        assert found_in(said.out + said.err + caplog.text) == []


def test_a_file_of_settings_keeps_its_secrets(desk, monkeypatch, capsys):
    for name in AWAY:
        if name.startswith("GENMILL_"):
            monkeypatch.delenv(name)
    lines = [f"{name}={value}\n" for name, value in AWAY.items()]
    (desk / ".env").write_text("".join(lines))
    for mode in (0o600, 0o666):
        (desk / ".env").chmod(mode)
        run(["doctor"])
        said = capsys.readouterr()
        assert str(desk / ".env") in said.out
        assert found_in(said.out + said.err) == []


def test_an_unexpected_error_shows_no_secret_in_its_traceback(desk, monkeypatch, capsys):
    import traceback

    from worker import settings

    kept = settings.read_settings()
    try:
        raise RuntimeError(f"odd: {kept!r} {kept.broker!r} {kept.model_dump()}")
    except RuntimeError:
        assert found_in(traceback.format_exc()) == []


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.xdist_group("e2e")
def test_a_system_at_work_shows_no_secret(
    machine: Machine,  # noqa: F811 - the fixture
    postgresql_database_url: str,
    broker_url: str,
    s3,
    tmp_path: Path,
) -> None:
    canaries = (PASSWORD, KEY)
    machine.environment |= {
        "GENMILL_DATABASE_URL": postgresql_database_url,
        "GENMILL_REDIS_URL": broker_url,
        "GENMILL_STORE_URL": s3.url,
        "GENMILL_S3_ENDPOINT_URL": s3.endpoint_url,
        "GENMILL_LOG_LEVEL": "debug",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": KEY,
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    assert all(canary in "".join(machine.environment.values()) for canary in canaries)
    said: list[str] = []

    def do(*words: str | Path) -> str:
        done = machine.genmill(*words)
        said.append(done.out + done.err)
        return done.out.strip()

    do("up", "--detach")
    (tmp_path / "book.txt").write_text("The wheels of the mill turn in the stream.\n" * 200)
    do("dataset", "add", "book", "book.txt")
    small = ("--set=layers=1", "--set=heads=2", "--set=width=16", "--set=context=16")
    what = ["--dataset", "book", "--name", "w", "--max-steps", "5", "--evaluate", *small]
    train = do("enqueue", "train", "gpt", *what, "--wait")
    job = do("enqueue", "generate", "w", "--count", "3", "--wait")
    said += [_command_line(process) for process in machine.processes()]
    for words in (["job", "show", train], ["job", "logs", train], ["doctor"], ["status", "--json"]):
        do(*words)
    do("artifact", "download", job, "-o", "out")
    # a database and a broker that are away are told of in a worker's log
    away = make_url(postgresql_database_url).set(port=1).render_as_string(hide_password=False)
    for name, url in (("DATABASE", away), ("REDIS", f"redis://:{PASSWORD}@127.0.0.1:1/0")):
        before = machine.environment[f"GENMILL_{name}_URL"]
        machine.environment[f"GENMILL_{name}_URL"] = url
        worker = machine.start("worker")
        machine.until(f"{name} is told of", lambda: "127.0.0.1:1" in _foreground(tmp_path))
        worker.kill()
        machine.environment[f"GENMILL_{name}_URL"] = before
        (machine.folder / "foreground.log").rename(machine.folder / f"{name}.log")
    machine.genmill("down")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    places = {str(path): path.read_bytes().decode("latin-1") for path in files}
    places |= {"output": "\n".join(said), "record": _record(postgresql_database_url)}
    assert json.loads(machine.genmill("job", "show", job, "--json").out)["status"] == "succeeded"
    leaks = [(where, canary) for where, it in places.items() for canary in canaries if canary in it]
    assert leaks == []


def _foreground(folder: Path) -> str:
    return (folder / "foreground.log").read_text(errors="replace")


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def _record(url: str) -> str:
    """Everything in the database, as text."""
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"))
    with closing(engine.connect()) as connection:
        rows = [
            row[0]
            for table in Base.metadata.sorted_tables
            for row in connection.execute(text(f"SELECT t::text FROM {table.name} AS t"))
        ]
    engine.dispose()
    return "\n".join(rows)
