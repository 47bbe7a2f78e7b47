from pathlib import Path

import pytest

from worker.settings import Settings

SECRET = "canary"


@pytest.fixture
def desk(sqlite_home, tmp_path, monkeypatch):
    """A home on SQLite, with nothing else set than where it is."""
    for name in ("GENMILL_DATABASE_URL", "GENMILL_TEST_DATABASE", "GENMILL_FUZZ", "PAGER"):
        monkeypatch.delenv(name, raising=False)
    tmp_path.chmod(0o700)
    return sqlite_home


def env_file(text: str) -> Path:
    path = Path(".env")
    path.write_text(text)
    path.chmod(0o600)
    return path.absolute()


def listed(genmill):
    return {row["setting"]: row for row in genmill("config", "list", "--json").json}


def checked(genmill):
    done = genmill("config", "check", "--json")
    return done.code, {row["setting"]: row for row in done.json}


def test_every_setting_is_listed_with_its_value_source_and_meaning(genmill, desk, monkeypatch):
    file = env_file("GENMILL_LEASE_S=9\nGENMILL_THREADS=2\n")
    monkeypatch.setenv("GENMILL_THREADS", "3")
    found = listed(genmill)
    assert list(found) == [f"GENMILL_{name.upper()}" for name in Settings.model_fields]
    lease, threads = found["GENMILL_LEASE_S"], found["GENMILL_THREADS"]
    assert (lease["value"], lease["default"], lease["source"]) == ("9", "60", str(file))
    assert (threads["value"], threads["source"]) == ("3", "environment")
    assert found["GENMILL_LOOP_S"]["source"] == "default"
    assert "heartbeat" in lease["meaning"]
    assert found["GENMILL_DATABASE_URL"]["value"] == f"sqlite:///{desk}/genmill.db"
    assert found["GENMILL_STORE_URL"]["value"] == (desk / "store").as_uri()
    assert found["GENMILL_PAGER"]["value"] == "less"
    text = genmill("config", "list").out
    assert all(name in text for name in found)


@pytest.mark.parametrize(
    ("setting", "given", "value"),
    [
        ("DATABASE_URL", "postgresql://ann:canary@h:5432/x", "postgresql://ann:***@h:5432/x"),
        (
            "DATABASE_URL",
            "postgresql://h/x?user=ann&password=canary",
            "postgresql://h/x?user=ann&password=***",
        ),
        ("DATABASE_URL", "postgresql://ann:can/canary@h/x", "***"),
        ("REDIS_URL", "redis://:canary@h:6379/0", "redis://:***@h:6379/0"),
        ("REDIS_URL", "rediss://ann:canary@h", "rediss://ann:***@h"),
        ("REDIS_URL", "canary", "***"),
        ("STORE_URL", "s3://ann:canary@bucket", "***"),
        ("STORE_URL", "s3://bucket/prefix", "s3://bucket/prefix"),
        ("KEY_COMMAND", "/etc/kms --token=canary -v", "/etc/kms ***"),
        ("KEY_COMMAND", "/etc/kms", "/etc/kms"),
    ],
)
def test_passwords_are_masked(genmill, desk, monkeypatch, setting, given, value):
    monkeypatch.setenv(f"GENMILL_{setting}", given)
    assert listed(genmill)[f"GENMILL_{setting}"]["value"] == value
    for words in (("config", "list"), ("config", "check"), ("config", "check", "--json")):
        done = genmill(*words)
        assert SECRET not in done.out + done.err


def test_a_wrong_value_is_listed_as_it_was_given(genmill, desk, monkeypatch):
    monkeypatch.setenv("GENMILL_LEASE_S", "soon")
    assert listed(genmill)["GENMILL_LEASE_S"]["value"] == "soon"


def test_what_is_wrong_is_told_for_each_setting(genmill, desk, monkeypatch):
    for name, value in {
        "GENMILL_LEASE_S": "soon",
        "GENMILL_THREADS": "-1",
        "GENMILL_DEVICE": "gpu",
        "GENMILL_DATABSE_URL": "sqlite:///x.db",
        "GENMILL_REDIS_URL": "http://h",
        "GENMILL_S3_ENDPOINT_URL": "nowhere",
        "GENMILL_LOG_LEVEL": "debug",
    }.items():
        monkeypatch.setenv(name, value)
    code, found = checked(genmill)
    assert code == 1
    assert {name for name, row in found.items() if row["ok"]} == {
        "GENMILL_HOME",
        "GENMILL_LOG_LEVEL",
    }
    assert found["GENMILL_LOG_LEVEL"]["found"] == "from environment"
    assert "'soon'" in found["GENMILL_LEASE_S"]["found"]
    assert "heartbeat" in found["GENMILL_LEASE_S"]["remedy"]
    assert "use auto, cpu, cuda or cuda:0" in found["GENMILL_DEVICE"]["found"]
    assert "(did you mean 'DATABASE_URL'?)" in found["GENMILL_DATABSE_URL"]["found"]
    assert all(row["remedy"] for row in found.values() if not row["ok"])
    text = genmill("config", "check")
    assert text.err.startswith("Error: 6 of 8 settings are wrong: ")


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("KEY_FILE", "nowhere", "the installation key is missing: there is no nowhere"),
        ("KEY_FILE", "/dev/zero", "/dev/zero is not a file"),
        ("KEY_COMMAND", "'", "GENMILL_KEY_COMMAND cannot be taken apart"),
        ("KEY_COMMAND", " ", "GENMILL_KEY_COMMAND holds no command"),
    ],
)
def test_an_installation_key_that_cannot_be_used_is_told(
    genmill, desk, monkeypatch, name, value, says
):
    monkeypatch.setenv(f"GENMILL_{name}", value)
    code, found = checked(genmill)
    row = found[f"GENMILL_{name}"]
    assert (code, row["ok"], bool(row["remedy"])) == (1, False, True)
    assert row["found"].startswith(says)


def test_nothing_wrong_is_no_error(genmill, desk):
    code, found = checked(genmill)
    assert (code, list(found)) == (0, ["GENMILL_HOME"])


def test_a_file_that_is_not_read_is_told(genmill, desk, plain_user):
    file = env_file("GENMILL_LEASE_S=9\n")
    file.chmod(0o666)
    code, found = checked(genmill)
    assert (code, found[".env"]["ok"]) == (1, False)
    assert "other users can write to it" in found[".env"]["found"]
    file.chmod(0)
    code, found = checked(genmill)
    assert code == 1
    assert "Permission denied" in found[".env"]["found"]
    assert genmill("config", "list").code == 2


def test_doctor_goes_on_whatever_the_settings_are(genmill, desk, monkeypatch, plain_user):
    env_file("GENMILL_LEASE_S=9\n").chmod(0)
    rows = {row["check"]: row for row in genmill("doctor", "--json").json}
    assert "Permission denied" in rows["settings"]["found"]
    assert len(rows) > 10
    Path(".env").unlink()
    monkeypatch.setenv("GENMILL_LEASE_S", "soon")
    rows = {row["check"]: row for row in genmill("doctor", "--json").json}
    assert "GENMILL_LEASE_S: " in rows["settings"]["found"]
    assert rows["database"]["ok"]


@pytest.mark.parametrize("what", ["", "run", "store", "genmill.db"])
def test_doctor_tells_what_cannot_be_read_and_goes_on(genmill, desk, plain_user, what):
    (desk / "run").mkdir(exist_ok=True)
    (desk / "store").mkdir(exist_ok=True)
    (desk / what).chmod(0)
    try:
        done = genmill("doctor", "--json")
    finally:
        (desk / what).chmod(0o700)
    assert done.code == 1
    assert len(done.json) > 10
    assert "unforeseen" not in done.out + done.err
    assert "could not be checked" not in done.out


def test_an_object_that_cannot_be_read_does_not_end_an_audit(
    genmill, picture_job, home, plain_user
):
    first, *_ = sorted((home / "store").rglob("blobs/*"))
    first.chmod(0)
    done = genmill("doctor", "--audit", "--json")
    assert done.code == 1
    texts = [each["text"] for each in done.json["violations"]]
    assert any("cannot be read" in text and first.name in text for text in texts), texts


def test_a_line_of_the_file_that_is_no_setting_is_told(genmill, desk):
    Path(".env").write_text("GENMILL_LOOP_S=2\nbad line\n# a note\n")
    checked = genmill("config", "check", "--json")
    [wrong] = [each for each in checked.json if not each["ok"]]
    assert (checked.code, wrong["setting"], wrong["found"]) == (1, ".env", "line 2 is no setting")


@pytest.mark.parametrize("below", ["", "deeper/home"])
def test_a_home_that_can_be_no_folder_is_wrong(genmill, desk, tmp_path, monkeypatch, below):
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setenv("GENMILL_HOME", str(file / below))
    code, found = checked(genmill)
    assert code == 1
    assert found["GENMILL_HOME"]["found"] == f"{file} is not a folder"
