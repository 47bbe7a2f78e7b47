"""Commands on an encrypted store: nothing readable lies there, and everything goes on as usual."""

import json
import sys
from pathlib import Path

import pytest

from db import keys, workers
from db.columns import new_id
from db.keys import ALL_TENANTS, Purpose
from scheduler.audit.byte_checks import Objects
from scheduler.dispatch.garbage import collect_datasets, collect_jobs, collect_packs
from scheduler.submission.enqueue import enqueue
from tests.encrypting import make_kms
from worker.keys import changes
from worker.keys.keyring import context_of
from worker.keys.master import FileMaster
from worker.services import open_services
from worker.specs import parse_spec
from worker.store.base import SENTINEL, STORE_KEY
from worker.store.data_key import DataKey
from worker.store.encrypted import EncryptedStore
from worker.store.folder import FolderStore
from worker.store.sealing import HEADER

from .conftest import commit_together, make_samples

MARKER = b"text number"  # each sample of a text job has it
ENCRYPTED = "GENMILL_STORE_ENCRYPTION"
SPEC = {"kind": "generate", "model": "prose", "count": 6, "seed": 7}


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.slow)])
def place(request, home, monkeypatch) -> str:
    if request.param == "s3":
        s3 = request.getfixturevalue("s3")
        monkeypatch.setenv("GENMILL_STORE_URL", s3.url)
        monkeypatch.setenv("GENMILL_S3_ENDPOINT_URL", s3.endpoint_url)
    monkeypatch.setenv(ENCRYPTED, "aes-256-gcm")
    return request.param


@pytest.fixture
def encrypted(home, monkeypatch) -> None:
    """The home's own store is encrypted from its first use on."""
    monkeypatch.setenv(ENCRYPTED, "aes-256-gcm")


def stored(services) -> dict[str, bytes]:
    """Every object as it lies in the store, by its name there."""
    raw, found = services.store.raw, {}
    for folder in ("jobs", "packs", "models", "datasets", "prompts"):
        for name in raw.keys(folder):
            with raw.open(name) as file:
                found[name] = file.read()
    return found


def path_in(home: Path, folder: str) -> Path:
    """The largest object below a folder of the home's store."""
    files = (each for each in (home / "store" / folder).rglob("*") if each.is_file())
    return max(files, key=lambda each: each.stat().st_size)


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[HEADER + 5] ^= 1
    path.write_bytes(data)


def test_the_whole_life_of_jobs(place, genmill, services, prose, tmp_path):
    alone = make_samples(services, prose, 3, tmp_path)
    packed = [enqueue(services, parse_spec(SPEC | {"seed": seed})).id for seed in range(2)]
    commit_together(services, packed, tmp_path)

    found = stored(services)
    assert len(found) > 5
    for name, data in found.items():
        assert data.startswith(b"GENMILL\x01"), name
        assert MARKER not in data
        assert b"sha256" not in data

    assert genmill("artifact", "download", alone, "-o", "all", "--as", "jsonl").code == 0
    assert Path("all/samples.jsonl").read_bytes().count(MARKER) == 3
    some = genmill("artifact", "download", packed[0], "-o", "some", "--sample", "4")
    assert some.code == 0, some.err
    for job in (alone, *packed):
        checked = genmill("artifact", "verify", job)
        assert checked.code == 0, checked.err
    audited = genmill("doctor", "--audit")
    assert (audited.code, audited.out) == (0, ""), audited.out
    disk = genmill("doctor", "--disk", "--json")
    assert {each["what"] for each in disk.json["totals"]} >= {"jobs", "packs", "models"}

    [artifact, *_] = genmill("artifact", "list", alone, "--json").json
    refused = genmill("artifact", "url", artifact["id"])
    assert (refused.code, "have no URL" in refused.err) == (2, True), refused.err

    for collect in (collect_jobs, collect_packs, collect_datasets):
        collect(services, older_than_s=-60)
    assert genmill("artifact", "verify", packed[1]).code == 0
    removed = genmill("job", "remove", alone, "--yes")
    assert removed.code == 0, removed.err
    assert not list(services.store.keys(f"jobs/{alone}"))


def test_garbage_is_found_by_its_key(encrypted, services, text_job):
    kept = set(services.store.keys("jobs"))
    services.store.put_bytes(f"jobs/{text_job}/blobs", b"of a lost attempt")
    assert collect_jobs(services, older_than_s=-60) == 1
    assert set(services.store.keys("jobs")) == kept


@pytest.mark.slow
def test_a_backup_moves_a_plain_store_into_an_encrypted_one_and_back(
    genmill, services, text_job, tmp_path, monkeypatch
):
    def restore_into(name: str) -> Path:
        monkeypatch.setenv("GENMILL_HOME", str(tmp_path / name))
        restored = genmill("restore", "copy")
        assert restored.code == 0, restored.err
        assert genmill("artifact", "verify", text_job).code == 0
        assert genmill("doctor", "--audit").code == 0
        return tmp_path / name / "store"

    assert genmill("backup", "copy").code == 0
    monkeypatch.setenv(ENCRYPTED, "aes-256-gcm")
    store = restore_into("encrypted")
    files = [each for each in store.rglob("*") if each.is_file()]
    assert {STORE_KEY, SENTINEL} < {each.name for each in files}
    assert not any(MARKER in each.read_bytes() for each in files)
    Path("copy").rename("first")
    assert genmill("backup", "copy").code == 0
    monkeypatch.setenv(ENCRYPTED, "none")
    store = restore_into("plain")
    assert any(MARKER in each.read_bytes() for each in store.rglob("*") if each.is_file())


def test_a_listed_backup_is_restored_beside_its_store(
    place, genmill, services, text_job, tmp_path, monkeypatch
):
    if place == "folder":
        pytest.skip("the store goes with its home")
    monkeypatch.setenv("GENMILL_KEY_FILE", str(tmp_path / "home/keys/master.key"))
    assert genmill("backup", "copy").code == 0
    lines = Path("copy/objects.jsonl").read_text().splitlines()
    assert any(f"jobs/{text_job}/" in json.loads(line)["key"] for line in lines)
    monkeypatch.setenv("GENMILL_HOME", str(tmp_path / "other"))
    monkeypatch.delenv("GENMILL_DATABASE_URL", raising=False)
    restored = genmill("restore", "copy")
    assert restored.code == 0, restored.err
    assert genmill("artifact", "verify", text_job).code == 0


def test_damage_is_told_by_whoever_reads_it(encrypted, genmill, home, text_job):
    damage(path_in(home, f"jobs/{text_job}/blobs"))
    for words in (("artifact", "verify", text_job), ("artifact", "download", text_job)):
        told = genmill(*words)
        assert told.code == 1
        assert "was changed in the store, or cut off" in told.err
    audited = genmill("doctor", "--audit")
    assert (audited.code, "differs from its digest" in audited.out) == (1, True)
    saved = genmill("backup", "copy")
    assert (saved.code, "was changed in the store" in saved.err) == (1, True)


def test_an_audit_reads_what_is_left_around_the_damage(encrypted, services, home):
    data = bytes(range(1, 251)) * 1000
    key = services.store.put_bytes("datasets/blobs", data).key
    path = path_in(home, "datasets/blobs")
    sealed = bytearray(path.read_bytes())
    sealed[100_000] ^= 1  # in the second chunk
    path.chmod(0o600)
    path.write_bytes(sealed)
    left = data[: 1 << 16] + bytes(1 << 16) + data[2 << 16 :]
    assert Objects(services.store).read(key) == left
    assert Objects(services.store).read(key, start=90_000, stop=95_000) == bytes(5000)


def test_what_was_damaged_is_made_again(encrypted, genmill, services, home, text_job, worker):
    before = dict(services.store.sizes("jobs"))
    damage(path_in(home, f"jobs/{text_job}/blobs"))
    done = genmill("doctor", "--audit", "--repair", "--yes")
    assert done.code == 0, done.err
    assert before.items() <= dict(services.store.sizes("jobs")).items()
    assert genmill("artifact", "verify", text_job).code == 0


def test_an_emptied_store_gets_a_key_with_its_sentinel(encrypted, genmill, services, home, prose):
    for name in (SENTINEL, STORE_KEY):
        (home / "store" / name).unlink()
    services.close()
    assert "not mounted" in genmill("doctor", "--check", "store").out
    genmill("doctor", "--audit", "--repair", "--yes")
    again = open_services()
    key = again.store.put_bytes("models/blobs", b"new").key
    assert again.store.stat(key).size == 3
    again.close()


def test_a_store_opened_with_other_settings_says_so(genmill, services, text_job, monkeypatch):
    reading = ("artifact", "verify", text_job)
    monkeypatch.setenv(ENCRYPTED, "aes-256-gcm")
    for words in (reading, ("doctor", "--check", "store")):
        told = genmill(*words)
        assert told.code != 0
        assert (
            "is not encrypted, and GENMILL_STORE_ENCRYPTION is aes-256-gcm" in told.err + told.out
        )


def test_an_encrypted_store_opened_as_a_plain_one_says_so(
    encrypted, genmill, services, text_job, monkeypatch
):
    assert "encrypted (aes-256-gcm)" in genmill("doctor", "--check", "store").out
    monkeypatch.setenv(ENCRYPTED, "none")
    for words in (
        ("artifact", "verify", text_job),
        ("artifact", "download", text_job),
        ("job", "show", text_job, "--full"),
        ("doctor", "--check", "store"),
        ("backup", "copy"),
    ):
        told = genmill(*words)
        if words[0] != "job":
            assert told.code != 0
            assert "is encrypted, and GENMILL_STORE_ENCRYPTION is none" in told.err + told.out
        assert "Traceback" not in told.err
    assert genmill("config", "check").code == 0


def test_a_lost_installation_key_says_so(encrypted, genmill, home, text_job):
    (home / "keys" / "master.key").rename(home / "elsewhere.key")
    told = genmill("artifact", "verify", text_job)
    assert told.code == 3
    assert "its key cannot be unwrapped: the installation key is missing" in told.err
    assert not (home / "keys" / "master.key").exists()
    assert genmill("doctor", "--audit").code == 3


def test_the_installation_key_can_be_changed(encrypted, genmill, home, text_job, monkeypatch):
    assert genmill("key", "create", "watermark").code == 0
    old, new = home / "keys" / "master.key", home / "new.key"
    new.write_text("ab" * 32)
    new.chmod(0o600)
    monkeypatch.setenv("GENMILL_KEY_FILE", str(new))
    assert genmill("artifact", "verify", text_job).code == 3
    done = genmill("key", "rewrap", "--old-key-file", str(old))
    assert done.code == 0, done.err
    assert done.out == "1 key wrapped anew\nthe key of the object store wrapped anew\n"
    assert genmill("artifact", "verify", text_job).code == 0
    assert genmill("key", "rotate", "watermark").code == 0
    again = genmill("key", "rewrap", "--old-key-file", str(old), "--json")
    assert again.json == {"keys": 0, "already": 2, "store": False}
    monkeypatch.setenv("GENMILL_KEY_FILE", str(old))
    assert genmill("artifact", "verify", text_job).code == 3


@pytest.fixture
def new_key(home, monkeypatch) -> Path:
    """The settings name another installation key than the one that was in use until now."""
    path = home / "new.key"
    path.write_text("ab" * 32)
    path.chmod(0o600)
    monkeypatch.setenv("GENMILL_KEY_FILE", str(path))
    return path


def test_the_store_s_key_is_wrapped_anew_whatever_the_settings_say(
    encrypted, genmill, home, text_job, new_key, monkeypatch
):
    old = home / "keys" / "master.key"
    monkeypatch.setenv(ENCRYPTED, "none")
    done = genmill("key", "rewrap", "--old-key-file", str(old), "--json")
    assert (done.code, done.json) == (0, {"keys": 0, "already": 0, "store": True}), done.err
    old.unlink()
    monkeypatch.setenv(ENCRYPTED, "aes-256-gcm")
    assert genmill("artifact", "verify", text_job).code == 0


def test_an_encryption_that_was_interrupted_goes_on_with_another_installation_key(
    genmill, home, text_job, monkeypatch
):
    monkeypatch.setenv(ENCRYPTED, "aes-256-gcm")
    with monkeypatch.context() as changed:
        changed.setattr(DataKey, "take_over", lambda *_: sys.exit("killed"))
        with pytest.raises(SystemExit):
            genmill("store", "encrypt")
    old, new = home / "keys" / "master.key", home / "new.key"
    new.write_text("ab" * 32)
    new.chmod(0o600)
    monkeypatch.setenv("GENMILL_KEY_FILE", str(new))
    done = genmill("key", "rewrap", "--old-key-file", str(old), "--json")
    assert (done.code, done.json["store"]) == (0, True), done.err
    old.unlink()
    assert genmill("store", "encrypt").code == 0
    assert genmill("artifact", "verify", text_job).code == 0


@pytest.mark.parametrize("lost", ["store", f"store/{STORE_KEY}"])
def test_an_installation_key_is_not_changed_behind_the_back_of_a_store_that_is_away(
    encrypted, genmill, home, text_job, new_key, lost
):
    (home / lost).rename(home / "elsewhere")
    told = genmill("key", "rewrap", "--old-key-file", str(home / "keys" / "master.key"))
    assert told.code == 3
    assert "not mounted" in told.err or "it is missing" in told.err, told.err
    (home / "elsewhere").rename(home / lost)
    done = genmill("key", "rewrap", "--old-key-file", str(home / "keys" / "master.key"))
    assert done.code == 0, done.err
    assert genmill("artifact", "verify", text_job).code == 0


def test_keys_that_others_make_or_wrap_meanwhile_are_wrapped_anew(
    genmill, services, home, new_key, monkeypatch
):
    old = FileMaster(home / "keys" / "master.key", home=home)

    def add(purpose: Purpose, tenant: str) -> None:
        changes.create(services.database, old, purpose, tenant, who="another")

    add(Purpose.WATERMARK, "acme")
    listing, took = keys.listing, keys.rewrap

    def meanwhile(session, *arguments):
        found = listing(session, *arguments)
        monkeypatch.setattr(keys, "listing", listing)
        add(Purpose.HEAD, ALL_TENANTS)
        [mark] = found
        secret = old.unwrap(mark.wrapped, context_of(mark.id))
        again = old.wrap(secret, context_of(mark.id))
        services.database.transact(lambda s: took(s, mark, again))
        return found

    monkeypatch.setattr(keys, "listing", meanwhile)
    done = genmill("key", "rewrap", "--old-key-file", str(old.path), "--json")
    assert (done.code, done.json["keys"]) == (0, 2), done.err
    with services.database.read() as session:
        for row in listing(session):
            FileMaster(new_key).unwrap(row.wrapped, context_of(row.id))


def test_a_command_can_take_the_place_of_the_key_file(
    encrypted, genmill, home, text_job, tmp_path, monkeypatch
):
    kms = make_kms(tmp_path)
    monkeypatch.setenv("GENMILL_KEY_COMMAND", str(kms))
    told = genmill("artifact", "verify", text_job)
    assert (told.code, "set GENMILL_KEY_FILE as it was then" in told.err) == (3, True), told.err
    done = genmill("key", "rewrap", "--old-key-file", str(home / "keys" / "master.key"))
    assert done.code == 0, done.err
    (home / "keys" / "master.key").unlink()
    assert genmill("artifact", "verify", text_job).code == 0
    kms.unlink()
    assert genmill("artifact", "verify", text_job).code == 3
    wrong = genmill("key", "rewrap")
    assert (wrong.code, "--old-key-file or --old-key-command" in wrong.err) == (2, True)


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.slow)])
def plain_place(request, home, monkeypatch) -> str:
    if request.param == "s3":
        s3 = request.getfixturevalue("s3")
        monkeypatch.setenv("GENMILL_STORE_URL", s3.url)
        monkeypatch.setenv("GENMILL_S3_ENDPOINT_URL", s3.endpoint_url)
    return request.param


def test_a_store_in_use_is_encrypted_where_it_is(
    plain_place, genmill, services, prose, tmp_path, monkeypatch
):
    alone = make_samples(services, prose, 3, tmp_path)
    packed = enqueue(services, parse_spec(SPEC)).id
    commit_together(services, [packed, enqueue(services, parse_spec(SPEC)).id], tmp_path)
    before = stored(services)
    unset = genmill("store", "encrypt")
    assert (unset.code, "GENMILL_STORE_ENCRYPTION is none" in unset.err) == (2, True)

    monkeypatch.setenv(ENCRYPTED, "aes-256-gcm")
    done = genmill("store", "encrypt", "--json")
    assert done.code == 0, done.err
    size_bytes = sum(map(len, before.values()))
    count = len(before)
    assert done.json == {"objects": count, "size_bytes": size_bytes, "deleted": count}
    found = stored(services)
    assert len(found) == count
    assert all(data.startswith(b"GENMILL\x01") for data in found.values())
    for job in (alone, packed):
        assert genmill("artifact", "verify", job).code == 0
    assert genmill("doctor", "--audit").code == 0
    again = genmill("store", "encrypt", "--json")
    assert again.json == {"objects": 0, "size_bytes": 0, "deleted": 0}
    monkeypatch.setenv(ENCRYPTED, "none")
    assert genmill("artifact", "verify", alone).code == 3


@pytest.mark.parametrize("nth", ["first", pytest.param("third", marks=pytest.mark.slow), "last"])
def test_an_encryption_that_was_interrupted_goes_on(genmill, services, text_job, monkeypatch, nth):
    objects = len(stored(services))
    strikes_at = {"first": 1, "third": 3, "last": objects + 1}[nth]
    monkeypatch.setenv(ENCRYPTED, "aes-256-gcm")
    calls = []

    def fail(real):
        def call(*arguments, **more):
            calls.append(1)
            if len(calls) == strikes_at:
                raise KeyboardInterrupt
            return real(*arguments, **more)

        return call

    with monkeypatch.context() as changed:
        for kind, name in (
            (EncryptedStore, "put"),
            (EncryptedStore, "put_as"),
            (DataKey, "take_over"),
        ):
            changed.setattr(kind, name, fail(getattr(kind, name)))
        assert genmill("store", "encrypt").code == 130
    waiting = genmill("doctor", "--check", "store")
    assert (waiting.code, "`genmill store encrypt`" in waiting.out) == (1, True), waiting.out
    monkeypatch.setenv(ENCRYPTED, "none")
    assert genmill("artifact", "verify", text_job).code == 0
    monkeypatch.setenv(ENCRYPTED, "aes-256-gcm")
    assert genmill("store", "encrypt").code == 0
    assert len(stored(services)) == objects
    assert genmill("artifact", "verify", text_job).code == 0


def test_plain_objects_that_an_interruption_left_are_deleted(
    genmill, services, text_job, monkeypatch
):
    monkeypatch.setenv(ENCRYPTED, "aes-256-gcm")
    with monkeypatch.context() as changed:
        changed.setattr(FolderStore, "delete", lambda *_: sys.exit("killed"))
        with pytest.raises(SystemExit):
            genmill("store", "encrypt")
    assert genmill("artifact", "verify", text_job).code == 0
    assert any(MARKER in data for data in stored(services).values())
    done = genmill("store", "encrypt", "--json")
    assert (done.json["objects"], done.json["deleted"] > 0) == (0, True)
    assert not any(MARKER in data for data in stored(services).values())


def test_a_store_is_not_encrypted_while_a_worker_lives(genmill, services, text_job, monkeypatch):
    with services.database.write() as session:
        workers.start(session, boot_id=new_id(), host="a", pid=7, device="cpu")
    monkeypatch.setenv(ENCRYPTED, "aes-256-gcm")
    refused = genmill("store", "encrypt")
    assert (refused.code, "1 worker is live, such as a:7" in refused.err) == (2, True), refused.err


def test_no_second_installation_key_is_made_beside_keys_on_record(
    genmill, home, text_job, new_key, monkeypatch
):
    assert genmill("key", "create", "watermark").code == 0
    assert genmill("backup", "copy").code == 0
    monkeypatch.delenv("GENMILL_KEY_FILE")
    monkeypatch.setenv(ENCRYPTED, "aes-256-gcm")
    own = home / "keys" / "master.key"
    told = genmill("store", "encrypt")
    assert told.code != 0
    assert "wrapped by another installation key" in told.err
    assert all(each in told.err for each in ("GENMILL_KEY_FILE", "key rewrap"))
    assert not own.exists()
    monkeypatch.setenv("GENMILL_DATABASE_URL", f"sqlite:///{home / 'restored.db'}")
    monkeypatch.setenv("GENMILL_STORE_URL", (home / "restored").as_uri())
    told = genmill("restore", "copy")
    assert told.code != 0
    assert "wrapped by another installation key" in told.err
    assert not own.exists()
    assert not (home / "restored" / STORE_KEY).exists()
    monkeypatch.setenv("GENMILL_KEY_FILE", str(new_key))
    assert genmill("restore", "copy").code == 0
    assert genmill("artifact", "verify", text_job).code == 0
    assert genmill("doctor", "--check", "keys").code == 0
