"""Publishing as a job: commands, the work of a shard, and what is on record afterwards."""

import hashlib
import json
import os
import shutil
import threading
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from db import jobs, schedules, shards, targets
from db.columns import new_id
from db.errors import Cancelled, Stopped, Unreachable
from db.session import clock
from db.states import FINAL, JobState
from db.tables import ModelVersion, Publication, Shard
from scheduler.dispatch.chains import move_chains_on
from scheduler.schedules.firing import fire_due
from scheduler.submission.sharding import publish_size
from tests.marked import make_marked
from tests.receivers import (
    VARIABLES,
    Bucket,
    Hook,
    HubServer,
    Mounted,
    SftpServer,
    WebdavServer,
    record_of,
    running,
)
from tests.site_pages import Page
from worker.publishing.folder import Folder
from worker.publishing.gallery import Gallery
from worker.publishing.hub import Hub
from worker.services.samples import entries, sample_objects

ALL = {"published": 5}
SLOW = pytest.mark.slow


@pytest.fixture(autouse=True)
def secrets(monkeypatch) -> None:
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def shelf(genmill, tmp_path) -> Mounted:
    """A folder as a target."""
    receiver = Mounted(tmp_path / "shelf")
    add(genmill, receiver)
    return receiver


@pytest.fixture
def work(services):
    """Do the work of every job that is queued, in this process."""
    import torch

    from worker.shards.attempt import work as answer
    from worker.shards.context import WorkerContext
    from worker.shared_memory import SharedState

    def run(**settings):
        given = services.settings.model_copy(update=settings)
        worker = type(services)(given)
        context = WorkerContext(worker, torch.device("cpu"))
        for _ in range(50):
            shard_id = due(services)
            if shard_id is None:
                break
            answer(context, shard_id, owner=new_id(), shared=SharedState())
        worker.close()

    return run


def due(services) -> str | None:
    with services.database.read() as session:
        queued = session.query(Shard).filter(Shard.status == "queued").all()
        now = clock(session)
        return next((each.id for each in queued if each.not_before <= now), None)


def hurry(services) -> None:
    """Make all that waits due."""
    with services.database.write() as session:
        for each in session.query(Shard).filter(Shard.status == "queued"):
            each.not_before, each.waiting = clock(session), False


def add(genmill, receiver, *more: str, name: str = "shelf"):
    words = [word for pair in receiver.settings for word in ("--set", pair)]
    words += [word for pair in receiver.secrets for word in ("--secret", pair)]
    made = genmill("target", "add", name, receiver.kind, receiver.address, *words, *more)
    assert made.code == 0, made.err
    return made


def digests(services, job_id) -> list[str]:
    return sorted(entry.sha256 for entry in entries(services, job_id))


def published(genmill, job_id) -> dict[str, int]:
    return genmill("job", "show", job_id, "--json").json["publications"]


def test_samples_are_published_with_their_records_and_verified_there(
    genmill, services, picture_job, shelf, work
):
    job_id = genmill("publish", picture_job, "--target", "shelf").out.strip()
    work()
    shown = genmill("job", "show", job_id, "--json").json
    assert (shown["status"], shown["kind"], shown["publications"]) == ("succeeded", "publish", ALL)
    assert shown["progress"] == {"done": 5, "total": 5, "unit": "items"}
    assert shelf.digests() == digests(services, picture_job)
    rows = genmill("publications", "list", "--target", "shelf", "--json").json
    assert [row["sample"] for row in rows] == [0, 1, 2, 3, 4]
    assert {(row["state"], row["marks_verified"], row["job"]) for row in rows} == {
        ("published", True, picture_job)
    }
    path = shelf.folder / picture_job / "000000003.png"
    assert record_of(path)["index"] == 3
    assert rows[3]["remote_id"] == f"{picture_job}/000000003.png"
    quiet = genmill("publications", "list", "--job", job_id, "-q").out.split()
    assert quiet[3] == rows[3]["item"]
    [report] = genmill("artifact", "list", job_id, "--json").json
    assert report["name"] == "publication-000000.json"


@SLOW
def test_what_is_published_already_stays_and_is_there_once(
    genmill, services, picture_job, shelf, work
):
    genmill("publish", picture_job, "--target", "shelf")
    work()
    before = {path: path.stat().st_mtime_ns for path in shelf.files()}
    again = genmill("publish", picture_job, "--target", "shelf").out.strip()
    work()
    assert published(genmill, again) == {"unchanged": 5}
    assert {path: path.stat().st_mtime_ns for path in shelf.files()} == before


KEPT_BY = {  # receivers, with what holds an item's own file and what tells of it, by its number
    "folder": (Mounted, "{:09d}.png", "{:09d}.png.json"),
    "webdav": (WebdavServer, "{:09d}.png", "{:09d}.png.json"),
    "sftp": (SftpServer, "{:09d}.png", "{:09d}.png.json"),
    "s3": (Bucket, "{:09d}.png", "{:09d}.png.json"),
    "gallery": (Mounted, "files/{job}-{:09d}.png", "items/{job}-{:09d}.html"),
    "hub": (HubServer, "{:09d}.png", "{:09d}.png.json"),
}


@pytest.mark.parametrize(
    "kind",
    [
        *("folder", "gallery"),
        *(pytest.param(each, marks=SLOW) for each in ("webdav", "sftp", "s3", "hub")),
    ],
)
def test_publishing_again_puts_back_what_is_missing_or_altered(
    genmill, services, picture_job, work, tmp_path, request, kind
):
    make, own, other = KEPT_BY[kind]
    given = {"s3": lambda: request.getfixturevalue("s3")}.get(kind, lambda: tmp_path / "root")()
    with running(make() if kind == "hub" else make(given)) as receiver:
        receiver.kind = kind
        add(genmill, receiver, "--expires", "90d")
        words = ("publish", picture_job, "--target", "shelf")
        genmill(*words)
        work()
        before = genmill("publications", "list", "--json").json
        receiver.change(own.format(1, job=picture_job), None)
        receiver.change(own.format(2, job=picture_job), b"defaced")
        receiver.change(other.format(3, job=picture_job), b"defaced")
        again = genmill(*words).out.strip()
        work()
        assert published(genmill, again) == {"put back": 1, "repaired": 2, "unchanged": 2}
        log = genmill("job", "logs", again).out
        assert "of what was published before: 2 unchanged, 2 repaired, 1 put back" in log
        after = genmill("publications", "list", "--json").json
        assert [row["reason"] for row in after] == [
            *(None, "it was missing", "it was altered", "it was altered", None)
        ]
        kept = ("item", "remote_id", "sha256", "state", "expires_at", "marks_verified")
        assert [[row[name] for name in kept] for row in after] == [
            [row[name] for name in kept] for row in before
        ]
        if kind != "gallery":
            assert receiver.digests() == digests(services, picture_job)
        last = genmill(*words).out.strip()
        work()
        assert published(genmill, last) == {"unchanged": 5}
        assert genmill("provenance", "audit").code == 0


@pytest.mark.parametrize("kind", ["folder", "gallery", "hub"])
def test_what_lies_in_the_place_of_an_item_is_that_item_s_matter(
    genmill, services, picture_job, work, tmp_path, kind
):
    own = KEPT_BY["gallery" if kind == "gallery" else "folder"][1]
    receiver, outside = Mounted(tmp_path / "shelf"), tmp_path / "outside"
    receiver.kind = kind
    add(genmill, receiver)
    words = ("publish", picture_job, "--target", "shelf")
    genmill(*words)
    work()
    names = [own.format(number, job=picture_job) for number in range(4)]
    link, pipe, folder, empty = (next(receiver.folder.rglob(name)) for name in names)
    outside.write_bytes(link.read_bytes())
    for each in (link, pipe, folder, empty):
        each.unlink()
    link.symlink_to(outside)
    os.mkfifo(pipe)
    (folder / "of-others").mkdir(parents=True)
    empty.mkdir()
    again = genmill(*words, "--idempotency-key", "again").out.strip()
    work()
    found = published(genmill, again)
    assert found["refused"] == found["unchanged"] == 1
    assert found.get("repaired", 0) + found.get("put back", 0) == 3
    assert (link.is_symlink(), link.read_bytes()) == (False, outside.read_bytes())
    assert (folder / "of-others").is_dir()
    why = f"{folder} is a folder, not a file, and cannot be removed: Directory not empty"
    row = genmill("publications", "list", "--json").json[2]
    assert (row["state"], row["reason"].startswith(why)) == ("refused", True)
    for told in (
        genmill("job", "show", again).out,
        genmill(*words, "--idempotency-key", "again", "--wait").err,
    ):
        assert f"{row['item']}" in told
        assert why in told
    (folder / "of-others").rmdir()
    last = genmill(*words).out.strip()
    work()
    assert published(genmill, last) == {"published": 1, "unchanged": 4}
    assert genmill("provenance", "audit").code == 0


def test_a_receiver_of_messages_gets_each_item_once_and_the_job_says_why(
    genmill, services, picture_job, work
):
    with running(Hook()) as receiver:
        add(genmill, receiver)
        for _ in range(2):
            last = genmill("publish", picture_job, "--target", "shelf").out.strip()
            work()
        assert published(genmill, last) == {"published before": 5}
        assert "cannot tell how they are" in genmill("job", "logs", last).out
        assert (len(receiver.messages), receiver.repeated) == (5, 0)


def test_a_published_item_stays_whose_repair_is_refused(
    genmill, services, picture_job, shelf, work, monkeypatch
):
    from worker.publishing.base import ItemRefused

    words = ("publish", picture_job, "--target", "shelf")
    genmill(*words)
    work()
    shelf.change(f"{picture_job}/000000001.png.json", b"reformatted")
    shelf.change(f"{picture_job}/000000002.png", b"defaced")

    def refuse(self, *given):
        raise ItemRefused("it is too large")

    monkeypatch.setattr(Folder, "put", refuse)
    again = genmill(*words).out.strip()
    work()
    assert published(genmill, again) == {"published": 1, "refused": 1, "unchanged": 3}
    reasons = [row["reason"] for row in genmill("publications", "list", "--json").json]
    refused = "it is too large"
    assert reasons == [None, f"it was not repaired: {refused}", refused, None, None]
    assert "stays published, though it was not repaired" in genmill("job", "logs", again).out
    assert set(shelf.digests()) < set(digests(services, picture_job))
    assert len(shelf.digests()) == 4
    assert genmill("provenance", "audit").code == 0


def test_what_another_job_publishes_is_waited_for(genmill, services, picture_job, shelf, work):
    words = ("publish", picture_job, "--target", "shelf")
    first, again = (genmill(*words).out.strip() for _ in range(2))
    with services.database.write() as session:  # another worker has begun
        [shard] = jobs.shards_of(session, first)
        claim = shards.claim(session, shard.id, owner="other", lease_s=600)
    work()
    assert f"job {first} publishes" in genmill("job", "show", again).out
    assert shelf.files() == []
    with services.database.write() as session:
        shards.release(session, claim, "it is shutting down", backoff_s=0)
    for _ in range(2):
        hurry(services)
        work()
    assert published(genmill, first) == ALL
    assert published(genmill, again) == {"unchanged": 5}


def test_what_cannot_be_compared_stays_as_it_is(genmill, services, picture_job, shelf, work):
    words = ("publish", picture_job, "--target", "shelf")
    genmill(*words)
    work()
    damage(services, picture_job, shard=1)  # here, not at the target
    again = genmill(*words).out.strip()
    work()
    assert published(genmill, again) == {"published before": 1, "unchanged": 4}
    assert "cannot be compared" in genmill("job", "logs", again).out
    assert len(shelf.digests()) == 5


def test_a_repair_that_was_broken_off_goes_on(genmill, services, picture_job, shelf, work):
    words = ("publish", picture_job, "--target", "shelf")
    genmill(*words)
    work()
    for path in shelf.files():
        path.unlink()
    again = genmill(*words).out.strip()
    work(failpoint="publication_put:unreachable:2")
    hurry(services)
    work()
    assert published(genmill, again) == {"put back": 5}
    assert shelf.digests() == digests(services, picture_job)


def test_what_is_made_of_all_items_is_written_by_shards_that_change_some(
    genmill, services, picture_job, shelf, work, monkeypatch
):
    monkeypatch.setattr("scheduler.submission.sharding.ITEMS_PER_SHARD", 2)
    finish, finished = Folder.finish, []
    monkeypatch.setattr(Folder, "finish", lambda *given: finished.append(finish(*given)))
    words = ("publish", picture_job, "--target", "shelf")
    for missing, times, found in (
        (0, 3, ALL),
        (0, 1, {"unchanged": 5}),  # by the first: somebody may have changed them, too
        (1, 2, {"put back": 1, "unchanged": 4}),
    ):
        for path in sorted(shelf.folder.rglob("*.png"))[5 - missing :]:
            path.unlink()
        finished.clear()
        job_id = genmill(*words).out.strip()
        work()
        assert (published(genmill, job_id), len(finished)) == (found, times)


@pytest.mark.parametrize(
    ("items", "size"), [(0, 200), (20_000, 200), (20_001, 201), (1_000_000, 10_000)]
)
def test_a_publish_job_has_a_hundred_shards_at_most(items, size):
    assert publish_size(items) == size


@pytest.mark.parametrize(("kind", "cut"), [("folder", 5), ("gallery", 2), ("hub", 2)])
def test_a_job_has_few_shards_where_each_lists_all_items(
    genmill, services, picture_job, tmp_path, monkeypatch, kind, cut
):
    for name, value in (("ITEMS_PER_SHARD", 1), ("MAX_LISTING_SHARDS", 2)):
        monkeypatch.setattr(f"scheduler.submission.sharding.{name}", value)
    receiver = Mounted(tmp_path / "shelf")
    receiver.kind = kind
    add(genmill, receiver)
    job_id = genmill("publish", picture_job, "--target", "shelf").out.strip()
    assert len(genmill("job", "show", job_id, "--json").json["shards"]) == cut


def test_waiting_tells_what_became_of_the_items(genmill, picture_job, shelf, work):
    for key, told in (("first", "5 published"), ("second", "5 unchanged")):
        words = ("publish", picture_job, "--target", "shelf", "--idempotency-key", key)
        genmill(*words)
        work()
        assert genmill(*words, "--wait").err.endswith(f"items: {told}\n")


def test_what_was_published_is_taken_down_and_can_be_published_again(
    genmill, services, picture_job, shelf, work
):
    take_down = ("publish", picture_job, "--target", "shelf", "--take-down")
    genmill("publish", picture_job, "--target", "shelf")
    work()
    down = genmill(*take_down).out.strip()
    work()
    assert shelf.files() == []
    assert published(genmill, down) == {"taken down": 5}
    rows = genmill("publications", "list", "--state", "taken down", "--json").json
    assert len(rows) == 5
    assert all(row["taken_down_at"] and row["published_at"] for row in rows)
    nothing = genmill(*take_down)
    assert (nothing.code, "nothing of" in nothing.err) == (4, True)
    again = genmill("publish", picture_job, "--target", "shelf").out.strip()
    work()
    assert published(genmill, again) == ALL
    assert shelf.digests() == digests(services, picture_job)
    assert genmill("provenance", "audit").code == 0
    with services.database.write() as session:
        hidden = {"remote_id": "x", "state": "begun"}
        session.query(Publication).filter(Publication.sample == 1).update(hidden)
    told = genmill("provenance", "audit").out
    assert 'state was "published"' in told
    assert "remote_id was" in told


def test_the_audit_finds_a_publication_that_was_made_to_look_begun(
    genmill, services, picture_job, shelf, work
):
    words = ("publish", picture_job, "--target", "shelf")
    for more in ([], ["--take-down"]):
        genmill(*words, *more)
        work()
    job_id = genmill(*words).out.strip()
    work(failpoint="publication_begun:unreachable:1")
    genmill("job", "cancel", job_id)
    rows = genmill("publications", "list", "--state", "begun", "--json").json
    assert len(rows) == 5
    assert genmill("provenance", "audit").code == 0
    with services.database.write() as session:
        found = session.query(Publication).filter(Publication.sample == 1)
        found.update({"marks": "eu-art50"})
    assert "marks was null" in genmill("provenance", "audit").out
    with services.database.write() as session:
        session.query(Publication).update({"marks": None, "state": "published"})
    assert 'state was "begun"' in genmill("provenance", "audit").out


def test_a_hub_keeps_nothing_of_what_was_taken_down(genmill, services, picture_job, work, tmp_path):
    receiver = Mounted(tmp_path / "hub")
    receiver.kind = "hub"
    add(genmill, receiver)
    genmill("publish", picture_job, "--target", "shelf")
    work()
    metadata = receiver.folder / "metadata.jsonl"
    assert len(metadata.read_text().splitlines()) == 5
    down = genmill("publish", picture_job, "--target", "shelf", "--take-down").out.strip()
    work()
    assert published(genmill, down) == {"taken down": 5}
    assert {each.name: each.read_text()[:3] for each in receiver.files()} == {
        "metadata.jsonl": "",
        "README.md": "---",
    }


def test_a_cancelled_taking_down_leaves_no_metadata_of_what_is_gone(
    genmill, services, picture_job, work, tmp_path, monkeypatch
):
    receiver = Mounted(tmp_path / "hub")
    receiver.kind = "hub"
    add(genmill, receiver, "--set", "concurrency=1")
    genmill("publish", picture_job, "--target", "shelf")
    work()
    genmill("publish", picture_job, "--target", "shelf", "--take-down")
    take_down_all, calls = Hub.take_down_all, []

    def cancelled(target, places):
        calls.append(places)
        if len(calls) > 1:
            raise Cancelled("the job was cancelled")
        take_down_all(target, places)

    monkeypatch.setattr(Hub, "take_down_all", cancelled)
    with suppress(Cancelled):
        work()
    lines = (receiver.folder / "metadata.jsonl").read_text().splitlines()
    assert len(lines) == len(list(receiver.folder.glob("data/*/*"))) == 5 - len(calls[0])


def damage(services, job_id, *, shard: int) -> None:
    """Change a byte of the first sample in an object of the store."""
    artifact = [each for each, _ in sample_objects(services, job_id)][shard]
    path = services.settings.home / "store" / artifact.key
    data = bytearray(path.read_bytes())
    data[600] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)


def test_a_sample_that_cannot_be_verified_is_not_published_and_named(
    genmill, services, picture_job, shelf, work
):
    damage(services, picture_job, shard=1)
    job_id = genmill("publish", picture_job, "--target", "shelf").out.strip()
    work()
    assert published(genmill, job_id) == {"published": 4, "refused": 1}
    [row] = genmill("publications", "list", "--state", "refused", "--json").json
    assert (row["sample"], row["remote_id"]) == (2, None)
    assert "SHA-256" in row["reason"]
    assert len(shelf.digests()) == 4
    assert "was not published" in genmill("job", "logs", job_id).out
    assert set(shelf.digests()) < set(digests(services, picture_job))


def test_a_job_fails_of_which_nothing_was_published(genmill, services, text_job, shelf, work):
    genmill(
        "target", "add", "strict", "folder", f"{shelf.address}-strict", "--set", "marks=eu-art50"
    )
    job_id = genmill("publish", text_job, "--target", "strict").out.strip()
    work()
    shown = genmill("job", "show", job_id, "--json").json
    assert (shown["status"], shown["publications"]) == ("failed", {"refused": 3})
    assert "none of 3 items was published" in shown["error"]
    assert "'eu-art50'" in shown["error"]
    assert shelf.files() == []


@SLOW
def test_sounds_and_texts_are_published_too(genmill, services, text_job, sound_job, shelf, work):
    for job_id in (text_job, sound_job):
        genmill("publish", job_id, "--target", "shelf")
    work()
    assert shelf.digests() == sorted(digests(services, text_job) + digests(services, sound_job))
    rows = genmill("publications", "list", "--json").json
    assert {row["media_type"] for row in rows} == {"application/json", "audio/wav"}


def test_a_model_version_is_published_with_what_is_known_of_it(
    genmill, services, digits, shelf, work
):
    job_id = genmill("publish", digits, "--target", "shelf").out.strip()
    work()
    assert published(genmill, job_id) == {"published": 2}
    path = shelf.folder / "models/digits/1/model.safetensors"
    assert record_of(path)["model"] == "digits:1"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert record_of(path)["weights_sha256"] == digest
    genmill("publish", "digits:1", "--target", "shelf", "--take-down")
    work()
    assert shelf.files() == []


def test_a_version_with_a_file_that_is_too_large_is_refused_as_a_whole(
    genmill, services, digits, shelf
):
    with services.database.write() as session:
        [version] = session.query(ModelVersion)
        size = {"size": 3 << 30}
        version.files = version.files | {"x.bin": version.files["model.safetensors"] | size}
    told = genmill("publish", digits, "--target", "shelf")
    assert told.code == 2
    assert "digits:1: x.bin has 3,221,225,472 bytes" in told.err
    assert "genmill model export digits:1 DIR" in told.err
    assert genmill("job", "list", "--kind", "publish", "-q").out == ""


@SLOW
def test_a_batch_is_published_as_a_batch(genmill, services, digits, shelf, commit, work):
    line = {"kind": "generate", "model": "digits", "count": 2}
    Path("jobs.jsonl").write_text("\n".join(json.dumps(line | {"seed": n}) for n in range(2)))
    batch = genmill("enqueue", "batch", "jobs.jsonl").out.strip()
    for job_id in genmill("job", "list", "--batch", batch, "-q").out.split():
        commit(job_id)
    made = genmill("publish", batch, "--target", "shelf", "--json").json
    assert [job["kind"] for job in made["jobs"]] == ["publish", "publish"]
    work()
    assert len(shelf.files()) == 8
    states = genmill("job", "list", "--batch", made["batch"], "--json").json
    assert {job["status"] for job in states} == {"succeeded"}


def test_publishing_follows_a_generate_job_in_its_chain(
    genmill, services, digits, shelf, commit, work
):
    words = ("enqueue", "generate", digits, "--count", "3", "--publish", "shelf", "--json")
    made = genmill(*words).json
    [first, then] = made["chain"]
    assert (first["kind"], then["kind"], then["status"]) == ("generate", "publish", "waiting")
    commit(first["id"])
    assert move_chains_on(services) == 1
    work()
    assert published(genmill, then["id"]) == {"published": 3}
    spec = genmill("job", "show", then["id"], "--json").json["spec"]
    assert (spec["job"], spec["model"]) == (first["id"], "digits:1")
    assert shelf.digests() == digests(services, first["id"])


@SLOW
def test_schedules_publish_too(genmill, digits, shelf):
    cron = ("--cron", "0 3 * * *", "--")
    for name, words in (
        ("nightly", ("publish", "digits", "--target", "shelf")),
        ("daily", ("enqueue", "generate", digits, "--count", "3", "--publish", "shelf")),
    ):
        assert genmill("schedule", "add", name, *cron, *words).code == 0
    assert genmill("schedule", "trigger", "nightly", "--json").json[0]["kind"] == "publish"
    made = genmill("schedule", "trigger", "daily", "--json").json
    assert [job["kind"] for job in made] == ["generate", "publish"]
    wrong = genmill("schedule", "add", "x", *cron, "publish", "digits", "--target", "nowhere")
    assert (wrong.code, "no target 'nowhere'" in wrong.err) == (4, True)


def test_a_schedule_publishes_a_job_or_the_jobs_of_a_batch(
    genmill, digits, picture_job, shelf, commit
):
    line = json.dumps({"kind": "generate", "model": "digits", "count": 2})
    Path("jobs.jsonl").write_text(f"{line}\n{line}\n")
    batch = genmill("enqueue", "batch", "jobs.jsonl").out.strip()
    made = genmill("job", "list", "--batch", batch, "-q").out.split()
    for job_id in made:
        commit(job_id)
    for name, what, named in (("job", picture_job, [picture_job]), ("batch", batch, made)):
        words = ("--cron", "0 3 * * *", "--", "publish", what, "--target", "shelf")
        added = genmill("schedule", "add", name, *words)
        assert added.code == 0, added.err
        fired = genmill("schedule", "trigger", name, "--json").json
        specs = [genmill("job", "show", each["id"], "--json").json["spec"] for each in fired]
        assert sorted(spec["job"] for spec in specs) == sorted(named)


def test_a_gallery_offers_what_a_stranger_needs_to_verify_its_items(
    genmill, services, digits, work, tmp_path, monkeypatch
):
    site = tmp_path / "site"
    site.mkdir()
    own = genmill("key", "create", "signing", "--name", "Ours Ltd").out.strip()
    genmill("key", "create", "signing", "--tenant", "acme", "--name", "Acme Ltd")
    Path("own.toml").write_text('marks = ["record", "c2pa"]')
    outputs = [np.zeros((32, 32, 1), np.uint8)]
    signed = make_marked(services, digits, outputs, tmp_path, marks="./own.toml")
    plain = make_marked(services, digits, outputs, tmp_path)
    genmill("target", "add", "site", "gallery", str(site))
    for job in (signed, plain):
        genmill("publish", job, "--target", "site")
    work()
    shown = {
        job: Page((site / f"items/{job}-000000000.html").read_text()) for job in (signed, plain)
    }
    file, bundle = f"{signed}-000000000.png", f"{own}.json"
    words = ("provenance", "verify", "--trust", bundle, file)
    assert f"genmill {' '.join(words)}" in shown[signed].words
    assert f"../trust/{bundle}" in shown[signed].links()
    assert "Any reader of C2PA Content Credentials shows its signature." in shown[signed].words
    assert not [word for word in ("--trust", "C2PA") if word in shown[plain].words]
    assert [each.name for each in (site / "trust").iterdir()] == [bundle]  # no other tenant's
    assert b"Acme" not in (site / "trust" / bundle).read_bytes()
    genmill("key", "revoke", own, "--reason", "it was stolen")
    home = os.environ["GENMILL_HOME"]
    for verdict in ("intact", "unproven"):
        fetched = tmp_path / verdict
        fetched.mkdir()
        monkeypatch.chdir(fetched)
        for name in (f"trust/{bundle}", f"files/{file}"):
            shutil.copy(site / name, fetched)
        monkeypatch.setenv("GENMILL_HOME", str(fetched / "home"))
        found = genmill(*words, "--json").json
        assert [each["verdict"] for each in found] == [verdict]
        monkeypatch.setenv("GENMILL_HOME", home)
        genmill("publish", plain, "--target", "site", "--take-down")
        work()


def test_a_key_that_is_revoked_while_a_job_publishes_is_revoked_in_the_gallery(
    genmill, services, digits, work, tmp_path, monkeypatch
):
    site = tmp_path / "site"
    site.mkdir()
    own = genmill("key", "create", "signing", "--name", "Ours Ltd").out.strip()
    Path("own.toml").write_text('marks = ["record", "c2pa"]')
    outputs = [np.zeros((32, 32, 1), np.uint8)]
    signed = make_marked(services, digits, outputs, tmp_path, marks="./own.toml")
    genmill("target", "add", "site", "gallery", str(site))
    genmill("publish", signed, "--target", "site")
    put = Gallery.put

    def put_and_revoke(*given):
        found = put(*given)
        genmill("key", "revoke", own, "--reason", "it was stolen")
        return found

    monkeypatch.setattr(Gallery, "put", put_and_revoke)
    work()
    [shown] = json.loads((site / f"trust/{own}.json").read_text())["keys"]
    assert shown["reason"] == "it was stolen"


def test_a_dry_run_tells_the_plan_and_stores_nothing(genmill, picture_job, shelf):
    plan = genmill("publish", picture_job, "--target", "shelf", "--dry-run", "--json").json
    assert (plan["spec"]["kind"], plan["spec"]["job"], plan["shards"]) == (
        *("publish", picture_job),
        1,
    )
    assert genmill("job", "list", "--kind", "publish", "--json").json == []


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("nothing", "--target", "shelf"), 4, "no job, batch or model 'nothing'"),
        (("0" * 8, "--target", "shelf"), 4, "no job '00000000'"),
        (("digits", "--target", "shelv"), 4, "did you mean 'shelf'?"),
        (("digits:9", "--target", "shelf"), 4, "has no version '9'"),
        (("digits",), 2, "Missing option '--target'"),
        (("digits", "--target", "shelf", "--accept", "fluffy=yes"), 2, "is not a rule"),
    ],
)
def test_what_cannot_be_published_is_refused(genmill, digits, shelf, words, code, told):
    found = genmill("publish", *words)
    assert (found.code, told in found.err) == (code, True), found.err


def test_a_job_that_has_not_succeeded_is_refused(genmill, digits, shelf):
    job_id = genmill("enqueue", "generate", digits, "--count", "1").out.strip()
    found = genmill("publish", job_id, "--target", "shelf")
    assert (found.code, "is queued" in found.err) == (2, True)


def test_a_target_that_is_away_is_a_pause_and_nothing_is_counted(
    genmill, services, picture_job, work, tmp_path
):
    with running(WebdavServer(tmp_path / "dav")) as receiver:
        add(genmill, receiver, "--set", "tries=1")
        job_id = genmill("publish", picture_job, "--target", "shelf").out.strip()
        receiver.stop()
        work()
        [shard] = genmill("job", "show", job_id, "--json").json["shards"]
        assert (shard["status"], shard["failures"], shard["releases"]) == ("queued", 0, 1)
        assert "does not answer" in shard["last_error"]
        receiver.start()
        hurry(services)
        work()
        assert published(genmill, job_id) == ALL
        assert receiver.digests() == digests(services, picture_job)


@pytest.mark.parametrize(
    "point",
    [
        "publication_put",
        pytest.param("publication_begun", marks=SLOW),
        pytest.param("publication_recorded", marks=SLOW),
        pytest.param("publication_finished", marks=SLOW),
    ],
)
def test_an_attempt_goes_on_where_another_was_broken_off(
    genmill, services, picture_job, work, point
):
    with running(Hook()) as receiver:
        add(genmill, receiver, "--set", "concurrency=1", name="hook")
        job_id = genmill("publish", picture_job, "--target", "hook").out.strip()
        work(failpoint=f"{point}:unreachable:1")
        assert genmill("job", "show", job_id, "--json").json["status"] == "running"
        hurry(services)
        work()
        assert published(genmill, job_id) == ALL
        assert receiver.digests() == digests(services, picture_job)
        assert len(receiver.messages) == 5


@SLOW
def test_an_item_that_the_target_refuses_is_its_own_fault(genmill, services, picture_job, work):
    with running(Hook()) as receiver:
        add(genmill, receiver)
        unwanted = f"{picture_job}/000000001.png"

        def answer(message):
            return (422 if message.body["data"]["key"] == unwanted else 204), {}, b""

        receiver.answer = answer
        job_id = genmill("publish", picture_job, "--target", "shelf").out.strip()
        work()
        assert published(genmill, job_id) == {"published": 4, "refused": 1}
        [row] = genmill("publications", "list", "--state", "refused", "--json").json
        assert (row["item"], "422" in row["reason"]) == (unwanted, True)
        verified = genmill("publications", "list", "--state", "published", "--json").json
        assert {row["marks_verified"] for row in verified} == {None}


def test_what_was_refused_after_it_had_been_taken_is_taken_down(
    genmill, services, picture_job, work
):
    with running(Hook()) as receiver:
        add(genmill, receiver, "--set", "concurrency=1")
        bad, deaf = f"{picture_job}/000000001.png", [True]

        def answer(message):
            data = message.body["data"]
            if data.get("key") == bad:
                return 200, {}, json.dumps({"sha256": "0" * 64}).encode()
            return (400 if "key" not in data and deaf else 204), {}, b""

        receiver.answer = answer
        job_id = genmill("publish", picture_job, "--target", "shelf").out.strip()
        work()
        [row] = genmill("publications", "list", "--state", "begun", "--json").json
        [shard] = genmill("job", "show", job_id, "--json").json["shards"]
        assert (row["item"], shard["status"], shard["failures"]) == (bad, "queued", 0)
        assert "cannot be taken down" in shard["last_error"]
        deaf.clear()
        hurry(services)
        work()
        assert published(genmill, job_id) == {"published": 4, "refused": 1}
        assert len(receiver.digests()) == 4


@pytest.mark.parametrize("kind", ["folder", pytest.param("hub", marks=SLOW)])
def test_what_a_target_kept_of_an_item_that_it_refused_is_taken_down(
    genmill, services, picture_job, work, tmp_path, monkeypatch, kind
):
    from worker.publishing import find_kind
    from worker.publishing.base import ItemRefused

    target = find_kind(kind)
    method = "put_all" if target.batched else "put"
    put = getattr(target, method)

    def put_and_refuse(self, *given):
        done = put(self, *given)
        refused = ItemRefused("it is too large")
        if isinstance(done, str):
            raise refused
        return [refused for _ in done]

    monkeypatch.setattr(target, method, put_and_refuse)
    with running(HubServer() if kind == "hub" else Mounted(tmp_path / "shelf")) as receiver:
        add(genmill, receiver)
        job_id = genmill("publish", picture_job, "--target", "shelf").out.strip()
        work()
        assert published(genmill, job_id) == {"refused": 5}
        assert receiver.digests() == []


@SLOW
def test_a_target_that_gives_back_other_bytes_keeps_nothing(
    genmill, services, picture_job, shelf, work, monkeypatch
):
    fetch = Folder.fetch
    monkeypatch.setattr(
        Folder, "fetch", lambda self, place: fetch(self, place) + b"!" * ("03.png" in place)
    )
    job_id = genmill("publish", picture_job, "--target", "shelf").out.strip()
    work()
    assert published(genmill, job_id) == {"published": 4, "refused": 1}
    assert len(shelf.digests()) == 4


def test_a_target_tells_what_it_is_and_holds(genmill, services, picture_job, tmp_path, work):
    receiver = Mounted(tmp_path / "shelf")
    add(genmill, receiver, "--expires", "90d")
    assert " 90d" in genmill("target", "list").out
    job_id = genmill("publish", picture_job, "--target", "shelf").out.strip()
    with suppress(Unreachable):
        work(failpoint="publication_put:unreachable:1")
    genmill("job", "cancel", job_id)
    told = genmill("target", "remove", "shelf").err
    assert "items are begun at 'shelf'" in told
    assert "published at" not in told
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "pipe")
    for name, says in (("file", "not a folder"), ("pipe", "not a folder"), ("x" * 300, "too long")):
        assert genmill("target", "add", name[:9], "folder", str(tmp_path / name)).code == 0
        told = genmill("target", "check", name[:9])
        assert (told.code, says in told.err) == (3, True)


@SLOW
def test_what_a_cancelled_job_has_left_is_taken_down(genmill, services, picture_job, shelf, work):
    job_id = genmill("publish", picture_job, "--target", "shelf").out.strip()
    with suppress(Unreachable):
        work(failpoint="publication_put:unreachable:1")
    genmill("job", "cancel", job_id)
    assert shelf.files()
    assert genmill("publications", "list", "--state", "begun", "--json").json
    genmill("publish", picture_job, "--target", "shelf", "--take-down")
    work()
    assert shelf.files() == []
    assert genmill("publications", "list", "--state", "begun", "--json").json == []


def test_a_take_down_of_what_was_never_published_is_refused(
    genmill, services, picture_job, digits, shelf, work
):
    for what in (picture_job, digits):
        words = ("publish", what, "--target", "shelf", "--take-down")
        told = genmill(*words)
        assert told.code == 4
        assert f"nothing of '{what}' is published at 'shelf'" in told.err
        assert genmill("publish", what, "--target", "shelf").code == 0
        assert genmill(*words).code == 0  # the other may have begun
    work()
    keyed = ("publish", picture_job, "--target", "shelf")
    genmill(*keyed)
    work()
    first = genmill(*keyed, "--take-down", "--idempotency-key", "once").out
    work()
    assert genmill(*keyed, "--take-down", "--idempotency-key", "once").out == first


@pytest.fixture
def meanwhile(monkeypatch):
    """Have something done once, when the first item is about to be put in a folder."""
    put, lock, acts = Folder.put, threading.Lock(), []

    def act_and_put(self, *args):
        with lock:
            if acts:
                acts.pop()()
        return put(self, *args)

    monkeypatch.setattr(Folder, "put", act_and_put)
    return acts.append


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_take_down_that_meets_a_running_publish_removes_everything(
    genmill, services, picture_job, shelf, work, meanwhile, cancelled
):
    job_id = genmill("publish", picture_job, "--target", "shelf").out.strip()

    def take_down() -> None:
        if cancelled:
            genmill("job", "cancel", job_id)
        genmill("publish", picture_job, "--target", "shelf", "--take-down")
        work()

    meanwhile(take_down)
    with suppress(Stopped):
        work()
    if not cancelled:
        assert len(shelf.digests()) == 5
        [shard] = genmill("job", "list", "--kind", "publish", "-q").out.split()[:1]
        assert f"job {job_id} publishes" in genmill("job", "show", shard).out
    hurry(services)
    work()
    assert shelf.files() == []
    rows = genmill("publications", "list", "--json").json
    assert {row["state"] for row in rows} == {"taken down"}
    assert genmill("provenance", "audit").code == 0


def test_what_is_published_after_a_take_down_waits_for_it(
    genmill, services, picture_job, shelf, work
):
    words = ("publish", picture_job, "--target", "shelf")
    genmill(*words)
    work()
    down = genmill(*words, "--take-down").out.strip()
    again = genmill(*words).out.strip()
    with services.database.write() as session:  # another worker has begun
        [shard] = jobs.shards_of(session, down)
        claim = shards.claim(session, shard.id, owner="other", lease_s=600)
    work()
    assert f"job {down} takes it down" in genmill("job", "show", again).out
    with services.database.write() as session:
        shards.release(session, claim, "it is shutting down", backoff_s=0)
    for _ in range(2):
        hurry(services)
        work()
    assert genmill("job", "show", down, "--json").json["status"] == "succeeded"
    assert published(genmill, again) == ALL
    assert len(shelf.digests()) == 5


def test_a_target_that_one_worker_cannot_open_is_left_to_others(
    services, genmill, picture_job, shelf, work
):
    """As a worker of an earlier version, or one where the file of a secret holds something else."""
    job_id = genmill("publish", picture_job, "--target", "shelf").out.strip()

    def change(kind, **settings):
        with services.database.write() as session:
            target = targets.get(session, "shelf")
            target.kind, target.settings = kind, {"address": shelf.address} | settings

    change("shelves")
    work()
    assert "no kind of target 'shelves'" in genmill("job", "show", job_id).out
    change("folder", shelves=3)
    hurry(services)
    work()
    assert "no parameter 'shelves'" in genmill("job", "show", job_id).out
    change("folder")
    hurry(services)
    work()
    assert genmill("job", "show", job_id, "--json").json["status"] == "succeeded"


def test_a_secret_that_is_none_on_one_worker_fails_no_job(
    services, genmill, picture_job, work, monkeypatch
):
    with running(Hook()) as receiver:
        add(genmill, receiver, name="hook")
        job_id = genmill("publish", picture_job, "--target", "hook").out.strip()
        with monkeypatch.context() as patch:
            patch.setenv("TARGET_HOOK", "not base64!")
            work()
        assert "secret is not base64" in genmill("job", "show", job_id).out
        hurry(services)
        work()
    assert genmill("job", "show", job_id, "--json").json["status"] == "succeeded"


def test_all_workers_share_a_target_s_rate(services, genmill, shelf):
    with services.database.write() as session:
        target = targets.get(session, "shelf")
        waits = [targets.reserve(session, target.id, 2, rate=4.0) for _ in range(3)]
    assert waits == pytest.approx([0.0, 0.5, 1.0], abs=0.4)


@pytest.mark.parametrize(
    "words",
    [
        "publish digits --target shelf --take-down",
        "enqueue generate digits --count 3 --publish shelf",
        "enqueue batch jobs.jsonl",
    ],
)
def test_a_target_that_a_schedule_needs_stays(genmill, digits, shelf, words):
    line = {"kind": "publish", "target": "shelf", "model": "digits"}
    Path("jobs.jsonl").write_text(json.dumps(line))
    added = genmill("schedule", "add", "nightly", "--cron", "0 3 * * *", "--", *words.split())
    assert added.code == 0, added.err
    held = genmill("target", "remove", "shelf", "--abandon")
    assert held.code == 2
    assert "1 schedule would fail without the target 'shelf': nightly; remove th" in held.err
    genmill("schedule", "remove", "nightly")
    assert genmill("target", "remove", "shelf").code == 0


def test_a_schedule_that_finds_nothing_to_take_down_skips_its_run(genmill, services, digits, shelf):
    words = ("publish", "digits", "--target", "shelf", "--take-down")
    for wrong in (("--only-if-new-data", "--", *words), ("--", *words[:3], "nowhere", words[4])):
        assert genmill("schedule", "add", "weekly", "--cron", "0 3 * * *", *wrong).code in {2, 4}
    assert genmill("schedule", "add", "weekly", "--cron", "0 3 * * *", "--", *words).code == 0
    with services.database.write() as session:
        schedules.get(session, "weekly").next_due = clock(session)
    assert fire_due(services) == 0
    [run] = genmill("schedule", "show", "weekly", "--json").json["runs"]
    assert run["outcome"] == "skipped"
    assert run["reason"] == "nothing of 'digits' is published at 'shelf'"


def test_a_target_is_shown_checked_and_removed(genmill, services, picture_job, shelf, work):
    assert genmill("target", "check", "shelf").out == f"shelf: {shelf.address} works\n"
    genmill("publish", picture_job, "--target", "shelf")
    busy = genmill("target", "remove", "shelf")
    assert (busy.code, "is queued" in busy.err) == (2, True)
    work()
    [listed] = genmill("target", "list", "--json").json
    assert (listed["there"], listed["settings"]["concurrency"]) == (5, 4)
    assert genmill("target", "show", "shelf", "--json").json["publications"] == {"published": 5}
    held = genmill("target", "remove", "shelf")
    assert (held.code, "5 items are published at 'shelf'" in held.err) == (2, True)
    assert genmill("target", "remove", "shelf", "--abandon", "--json").json["abandoned"] == 5
    assert genmill("target", "list", "-q").out == ""
    assert {row["state"] for row in genmill("publications", "list", "--json").json} == {"abandoned"}
    assert genmill("target", "add", "shelf", "folder", shelf.address).code == 0
    again = genmill("target", "add", "shelf", "folder", shelf.address)
    assert (again.code, "there is a target 'shelf' already" in again.err) == (2, True)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("folder {0}/shelf", "folder {0}/shelf/"),
        ("folder {0}/shelf", "gallery {0}/more/../shelf"),
        ("folder {0}/shelf", "hub file://{0}/linked"),
        ("webdav https://h/in", "webdav https://H:443/in/"),
        ("s3 s3://pictures/public", "gallery s3://pictures/public/"),
        ("hub hf://datasets/ann/cats", "hub hf://datasets/ann/cats"),
    ],
)
def test_two_targets_cannot_have_one_address(genmill, tmp_path, first, second):
    (tmp_path / "linked").symlink_to(tmp_path / "shelf")
    assert genmill("target", "add", "one", *first.format(tmp_path).split()).code == 0
    told = genmill("target", "add", "two", *second.format(tmp_path).split())
    assert (told.code, "target 'one' has this address already" in told.err) == (2, True), told.err
    assert genmill("target", "list", "-q").out == "one\n"
    elsewhere = genmill("target", "add", "two", *f"{first}-too".format(tmp_path).split())
    assert elsewhere.code == 0, elsewhere.err


@pytest.mark.parametrize(
    ("first", "second", "lies"),
    [
        ("folder {0}/shelf", "gallery {0}/shelf/inner", "inside of"),
        ("gallery {0}/shelf/lists", "folder {0}/shelf", "around"),
        ("folder {0}/shelf", "hub {0}/linked/inner", "inside of"),
        ("webdav https://h/in", "webdav https://h/in/a/../b", "inside of"),
        ("webdav https://h/in/b", "webdav https://h/", "around"),
        ("s3 s3://pictures", "gallery s3://pictures/public", "inside of"),
        (
            "s3 s3://pictures/a?endpoint_url=https://h:443",
            "s3 s3://pictures/a/b?endpoint_url=https://H",
            "inside of",
        ),
    ],
)
def test_no_target_is_inside_of_another_s_folder(genmill, tmp_path, first, second, lies):
    (tmp_path / "linked").symlink_to(tmp_path / "shelf")
    assert genmill("target", "add", "one", *first.format(tmp_path).split()).code == 0
    told = genmill("target", "add", "two", *second.format(tmp_path).split())
    assert (told.code, f"lies {lies} that of target 'one'" in told.err) == (2, True), told.err


def test_a_loop_of_links_is_found_by_the_check(genmill, tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    assert genmill("target", "add", "loop", "folder", f"{tmp_path}/loop").code == 0
    assert genmill("target", "check", "loop").code in (2, 3)


def test_receivers_of_messages_may_have_paths_below_one_another(genmill):
    for name, path in (("one", ""), ("two", "/deeper")):
        words = ("target", "add", name, "webhook", f"https://h/in{path}")
        assert genmill(*words, "--secret", "secret=env:TARGET_HOOK").code == 0
    told = genmill(*words[:2], "three", *words[3:], "--secret", "secret=env:TARGET_HOOK")
    assert (told.code, "target 'two' has this address already" in told.err) == (2, True)


def test_no_secret_is_on_record_or_told(genmill, services, picture_job, work, tmp_path):
    with running(WebdavServer(tmp_path / "dav")) as receiver:
        add(genmill, receiver)
        genmill("publish", picture_job, "--target", "shelf")
        work()
        assert receiver.digests() == digests(services, picture_job)
    shown = "".join(
        genmill(*words).out
        for words in (
            ("target", "list", "--json"),
            ("target", "show", "shelf"),
            ("publications", "list", "--json"),
            ("job", "list", "--json"),
        )
    )
    with services.database.read() as session:
        rows = repr([vars(row) for row in targets.listing(session)])
    everything = b"".join(
        path.read_bytes() for path in services.settings.home.rglob("*") if path.is_file()
    )
    assert "env:TARGET_PASSWORD" in shown
    assert "canary" not in shown + rows
    assert b"canary" not in everything


@pytest.mark.parametrize(
    "words",
    [
        ("folder", ""),
        ("gallery", ""),
        ("folder", "relative", "--set", "speed=canary"),
        ("webdav", "https://ann:canary@h/"),
        ("webdav", "https://h/", "--secret", "password=canary"),
        ("webdav", "https://h/", "--set", "user=ann"),
        ("webhook", "https://h/in"),
        ("sftp", "sftp://h/in", "--set", "user=ann", "--secret", "password=env:X"),
        ("folder", "/x", "--set", "canary"),
        ("hub", "hf://ann/cats", "--set", "endpoint=https://ann:canary@h"),
        ("hub", "hf://ann/cats", "--set", "endpoint=http://canary.example.org"),
        ("gallery", "/x", "--set", "url=https://ann:canary@h/"),
        ("gallery", "s3://b/p?endpoint_url=http://canary.example.org"),
        ("folder", "/x", "--set", "rate=canary1", "--set", "rate=canary2"),
        ("gallery", "/x", "--set", "title=\udcff"),  # as of bytes that are not UTF-8
        ("hub", "hf://ann/cats", "--set", "endpoint="),  # of an unset variable: not the public hub
    ],
)
def test_a_target_that_is_wrong_is_refused_without_repeating_a_secret(genmill, words):
    found = genmill("target", "add", "x", *words)
    assert found.code == 2
    assert "canary" not in found.err
    assert genmill("target", "list", "-q").out == ""


def test_a_target_takes_a_profile_of_marks_that_is_known(genmill, tmp_path):
    found = genmill("target", "add", "x", "folder", "/x", "--set", "marks=eu-art5")
    assert found.code == 2
    assert "eu-art50" in found.err
    own = tmp_path / "own.toml"
    own.write_text('name = "of-ours"\nmarks = ["record"]\n')
    for name, given, kept in (("x", "cn-gb45438", "cn-gb45438"), ("y", str(own), "of-ours")):
        genmill("target", "add", name, "folder", f"/{name}", "--set", f"marks={given}")
        assert genmill("target", "show", name, "--json").json["settings"]["marks"] == kept


def test_a_job_that_is_about_to_be_published_is_not_removed(genmill, picture_job, shelf, work):
    job_id = genmill("publish", picture_job, "--target", "shelf").out.strip()
    for more in ((), ("--keep-artifacts",)):
        held = genmill("job", "remove", picture_job, "--yes", *more)
        assert held.code == 2
        assert f"job {job_id}, which is queued, publishes it at shelf" in held.err
    genmill("job", "cancel", job_id)
    assert genmill("job", "remove", picture_job, "--yes").code == 0


@SLOW
def test_a_cancelled_publish_job_ends(genmill, services, picture_job, shelf):
    job_id = genmill("publish", picture_job, "--target", "shelf").out.strip()
    genmill("job", "cancel", job_id)
    retried = genmill("job", "retry", job_id).out.strip()
    with services.database.read() as session:
        assert jobs.get(session, job_id).status == JobState.CANCELLED
        again = jobs.get(session, retried)
        assert again.status not in FINAL
        assert again.spec["job"] == picture_job
        assert [(s.start, s.stop) for s in jobs.shards_of(session, retried)] == [(0, 5)]


@pytest.mark.parametrize(
    ("rules", "count"), [("length>=5", 3), pytest.param("length>=500", 0, marks=SLOW)]
)
def test_only_samples_that_meet_the_rules_are_published(
    genmill, services, text_job, shelf, work, rules, count
):
    words = ("publish", text_job, "--target", "shelf", "--accept", rules)
    job_id = genmill(*words).out.strip()
    work()
    assert genmill("job", "show", job_id, "--json").json["status"] == "succeeded"
    assert len(shelf.digests()) == count
    wrong = genmill(*words[:-1], "near_duplicates=no")
    assert (wrong.code, "near_duplicates" in wrong.err) == (2, True)
