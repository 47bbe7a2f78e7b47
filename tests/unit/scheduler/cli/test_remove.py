"""Removing jobs, models and datasets: what goes, what stays and why, and what tells of it later."""

from datetime import timedelta
from pathlib import Path

import pytest

from db import datasets, evaluations, jobs, models, shards
from db.session import clock
from db.tables import Job, Tombstone
from scheduler.audit.auditor import Auditor
from scheduler.dispatch.garbage import collect_datasets, collect_jobs
from scheduler.removal.objects import sweep_due
from scheduler.submission.enqueue import enqueue
from tests.evaluations import add_dataset, add_evaluation, images
from worker.cache import Cache
from worker.services.finalize import finalize, settle
from worker.specs import parse_spec
from worker.store.folder import FolderStore

from .conftest import commit_together, make_samples

GENERATE = {"kind": "generate", "model": "prose", "count": 4, "seed": 7}


def train(services, name: str = "painter", **origin) -> str:
    """Train a version of a model on `pictures`, whose weights nobody reads; the job's id."""
    spec = {"kind": "train", "family": "gan", "model": name, "dataset": "pictures", "seed": 1}
    job = enqueue(services, parse_spec(spec))
    with services.database.write() as session:
        [shard] = jobs.shards_of(session, job.id)
        claim = shards.claim(session, shard.id, owner="0" * 36, lease_s=60)
    blob = services.store.put_bytes(f"jobs/{job.id}/blobs", f"{job.id}{name}".encode() * 99)
    place = ("model.safetensors", blob.key, blob.sha256, blob.size, "application/octet-stream")
    with services.database.write() as session:
        shards.commit(session, claim, [shards.NewArtifact("weights", *place)])
        models.add_version(
            session,
            name=name,
            family="gan",
            params={},
            files={"model.safetensors": vars(blob)},
            weights_sha256=blob.sha256,
            metrics={},
            job_id=job.id,
            dataset_version_id=datasets.resolve(session, "pictures")[1].id,
            **origin,
        )
    assert finalize(services, settle(services, [job.id]))
    return job.id


def stored(services, folder: str = "jobs") -> list[str]:
    return list(services.store.keys(folder))


def violations(services) -> list[str]:
    """What the auditor finds, but for the content of `pictures`, which has none."""
    found = map(str, Auditor(services).violations())
    return [each for each in found if "datasets/blobs/000000" not in each]


def add_texts(genmill, name: str, text: str) -> str:
    Path(f"{name}.txt").write_text(f"{text} goes to the woods and meets a fox. " * 60)
    return genmill("dataset", "add", name, f"{name}.txt").out.strip()


def test_a_removed_job_leaves_nothing_but_what_tells_of_it(genmill, services, picture_job):
    [artifact, *_] = genmill("artifact", "list", picture_job, "--json").json
    genmill("artifact", "download", picture_job, "-o", "out")
    before = stored(services)
    planned = genmill("job", "remove", picture_job, "--dry-run", "--json").json
    assert (planned["removed"], planned["dry_run"]) == ([picture_job], True)
    assert planned["items"][0]["objects"] == 3
    assert "5 samples can no longer be downloaded" in planned["follows"][0]
    assert stored(services) == before
    done = genmill("job", "remove", picture_job[:18], "--yes")
    assert (done.code, done.out) == (0, f"{picture_job}\n")
    assert stored(services) == []
    assert genmill("job", "list", "--json").json == []
    assert genmill("status", "--json").json["jobs"]["succeeded"] == 0
    for words in (["job", "show", picture_job], ["artifact", "show", artifact["id"]]):
        gone = genmill(*words)
        assert gone.code == 4, gone.err
        assert "was removed on 20" in gone.err
        assert "@" in gone.err
    shown = genmill("artifact", "show", "out/000000003.png", "--json").json
    assert (shown["job"], shown["versions"][0]["version"]) == (None, "digits:1")
    assert f"job {picture_job} was removed on 20" in shown["removed"][0]
    [told] = genmill("db", "removed", "--json").json
    assert (told["id"], told["size_bytes"]) == (picture_job, planned["size_bytes"])
    assert genmill("job", "remove", picture_job, "--yes").code == 4
    assert violations(services) == []


def test_nothing_is_removed_unasked(genmill, services, picture_job):
    refused = genmill("job", "remove", picture_job)
    assert (refused.code, refused.out) == (2, "")
    assert "nothing was removed: 1 job, " in refused.err
    assert "give --yes" in refused.err
    assert genmill("job", "show", picture_job).code == 0
    assert genmill("job", "remove", picture_job, "--yes", "--dry-run").code == 2


def test_a_job_that_something_names_stays(genmill, services, digits, pictures, tmp_path):
    running = genmill("enqueue", "generate", digits, "--count", "2").out.strip()
    held = genmill("job", "remove", running, "--yes")
    assert (held.code, "it is queued" in held.err) == (2, True)
    genmill("job", "cancel", running)
    again = genmill("job", "retry", running).out.strip()
    held = genmill("job", "remove", running, "--yes")
    assert (held.code, f"job {again} is a retry of it" in held.err) == (2, True)
    genmill("job", "cancel", again)
    trained = train(services)
    made = make_samples(services, digits, 2, tmp_path)
    held = genmill("job", "remove", trained, made, "--yes")
    assert (held.code, "it made the model painter:1" in held.err) == (2, True)
    assert genmill("job", "show", made).code == 0  # all or none
    add_evaluation(services, digits, images(1), dataset=pictures)
    [measured] = genmill("job", "list", "--kind", "evaluate", "--json").json
    held = genmill("job", "remove", measured["id"], "--yes")
    assert (held.code, "it measured the model digits:1" in held.err) == (2, True)
    together = genmill("job", "remove", again, running, made, "--yes")
    assert (together.code, stored(services, f"jobs/{made}")) == (0, [])


def test_a_chain_goes_together_or_from_its_end(genmill, services, pictures):
    words = ("--dataset", pictures, "--name", "m", "--evaluate")
    first = genmill("enqueue", "train", "gan", *words).out.strip()
    [second] = [each["id"] for each in genmill("job", "list", "--kind", "evaluate", "--json").json]
    genmill("job", "cancel", first)
    held = genmill("job", "remove", first, "--yes")
    assert (held.code, f"job {second} came after it" in held.err) == (2, True)
    assert genmill("job", "remove", first, second, "--yes").code == 0
    assert violations(services) == []


def test_kept_artifacts_can_still_be_fetched(genmill, services, picture_job):
    genmill("job", "logs", picture_job)
    done = genmill("job", "remove", picture_job, "--keep-artifacts", "--yes")
    assert (done.code, genmill("job", "list", "--json").json) == (0, [])
    assert genmill("status", "--json").json["jobs"]["succeeded"] == 0
    shown = genmill("job", "show", picture_job)
    assert (shown.code, "its objects were kept" in shown.err) == (4, True)
    assert len(genmill("artifact", "list", picture_job, "--json").json) == 3
    assert genmill("artifact", "verify", picture_job).code == 0
    assert genmill("artifact", "download", picture_job, "-o", "out").code == 0
    assert violations(services) == []
    assert genmill("job", "remove", picture_job, "--yes").code == 0
    assert stored(services) == []


def test_a_batch_goes_as_a_whole_and_says_so(genmill, services, prose):
    lines = '{"kind": "generate", "model": "prose", "count": 1}\n' * 3
    Path("lines.jsonl").write_text(lines)
    batch = genmill("enqueue", "batch", "lines.jsonl").out.strip()
    refused = genmill("job", "remove", batch, "--yes")
    assert (refused.code, "it is queued" in refused.err) == (2, True)
    genmill("job", "cancel", batch)
    assert genmill("job", "remove", batch, "--yes").out == f"{batch}\n"
    gone = genmill("job", "list", "--batch", batch)
    assert (gone.code, f"batch {batch} was removed" in gone.err) == (4, True)


def test_a_pack_goes_with_the_last_that_lies_in_it(genmill, services, prose, tmp_path):
    made = [enqueue(services, parse_spec(GENERATE | {"count": n})).id for n in (9, 2)]
    commit_together(services, made, tmp_path)
    before = stored(services, "packs")
    assert genmill("job", "remove", made[0], "--yes").code == 0
    assert stored(services, "packs") == before  # the manifests of both lie in one, too
    assert genmill("artifact", "verify", made[1]).code == 0
    assert violations(services) == []
    assert genmill("job", "remove", made[1], "--yes").code == 0
    assert stored(services, "packs") == []


@pytest.mark.parametrize("point", ["record_written", "store_deleted"])
def test_what_was_killed_in_between_is_finished_by_doing_it_again(
    genmill, services, picture_job, monkeypatch, point
):
    monkeypatch.setenv("GENMILL_FAILPOINT", f"{point}:unknown:1")
    assert genmill("job", "remove", picture_job, "--yes").code == 1
    monkeypatch.delenv("GENMILL_FAILPOINT")
    assert genmill("job", "show", picture_job).code == 4
    assert violations(services) == []
    again = genmill("job", "remove", picture_job, "--yes")
    if point == "record_written":  # an object was left
        assert (again.code, again.out) == (0, f"{picture_job}\n")
    assert stored(services) == []
    assert genmill("job", "remove", picture_job, "--yes").code == 4


def test_a_scheduler_finishes_removals_and_what_came_late(
    genmill, services, picture_job, monkeypatch
):
    genmill("job", "remove", picture_job, "--yes")
    services.store.put_bytes(f"jobs/{picture_job}/blobs", b"of a worker that was cut off")
    assert sweep_due(services) == 0  # it may still be at it

    def later(session):
        session.get(Tombstone, picture_job).sweep_at = clock(session)

    services.database.transact(later)
    assert sweep_due(services) == 1
    assert stored(services) == []
    with services.database.read() as session:
        assert session.get(Tombstone, picture_job).sweep_at is None


def test_a_removed_version_gives_its_weights_up_and_keeps_its_number(genmill, services, pictures):
    job = train(services)
    [weights] = genmill("artifact", "list", job, "--json").json
    genmill("model", "alias", "painter:1", "--as", "best")
    held = genmill("model", "remove", "painter:1", "--yes")
    assert (held.code, "the alias best means it" in held.err) == (2, True)
    genmill("model", "alias", "painter", "--as", "best", "--remove")
    planned = genmill("model", "remove", "painter:1", "--dry-run", "--json").json
    assert planned["size_bytes"] == weights["size"]
    assert f"job {job}, which trained it, stays" in planned["follows"][-1]
    assert genmill("model", "remove", "painter:1", "--yes").out == "painter:1\n"
    assert [key.rpartition("/")[2] for key in stored(services)] == ["manifest.json"]
    for words in (
        ["model", "show", "painter:1"],
        ["model", "show", "painter"],
        ["artifact", "show", weights["id"]],
        ["artifact", "download", job],
    ):
        gone = genmill(*words)
        assert (gone.code, "was removed on 20" in gone.err) == (4, True), gone.err
    assert violations(services) == []
    train(services)
    assert genmill("model", "show", "painter", "--json").json["version"] == 2
    history = genmill("model", "history", "painter", "--json").json
    assert [each["version"] for each in history] == [None, 1]
    assert genmill("model", "rollback", "painter", "--alias", "best").code in (2, 4)
    assert genmill("job", "remove", job, "--yes").code == 0


@pytest.mark.usefixtures("family_tree")
def test_versions_that_others_were_tuned_from_stay_and_shared_files_too(genmill, services):
    files = stored(services, "models")
    held = genmill("model", "remove", "digits:2", "--yes")
    assert held.code == 2
    assert "digits:3 was tuned from it" in held.err
    assert "copy:1 was tuned from it" in held.err
    planned = genmill("model", "remove", "copy:1", "--dry-run", "--json").json
    assert (planned["size_bytes"], planned["items"][0]["objects"]) == (0, 0)
    assert genmill("model", "remove", "copy:1", "--yes").code == 0
    assert stored(services, "models") == files
    assert violations(services) == []
    assert genmill("model", "remove", "digits", "--yes").out.split() == [
        *("digits:1", "digits:2", "digits:3")
    ]
    assert stored(services, "models") == []


def test_a_version_that_a_schedule_or_a_job_uses_stays(genmill, services, digits):
    add = ("schedule", "add", "often", "--cron", "0 3 * * *", "--", "enqueue", "generate")
    genmill(*add, digits, "--count", "1")
    job = genmill("schedule", "trigger", "often").out.strip()
    genmill("job", "cancel", job)
    assert genmill("job", "remove", job, "--yes").code == 0
    [run] = genmill("schedule", "show", "often", "--json").json["runs"]
    assert (run["job"], run["jobs"]) == (job, [])
    held = genmill("model", "remove", digits, "--yes")
    assert (held.code, "the schedule often uses it" in held.err) == (2, True)
    genmill("schedule", "remove", "often")
    job = genmill("enqueue", "generate", digits, "--count", "1").out.strip()
    held = genmill("model", "remove", digits, "--yes")
    assert (held.code, f"job {job}, which is queued, uses it" in held.err) == (2, True)
    genmill("job", "cancel", job)
    planned = genmill("model", "remove", digits, "--dry-run")
    assert "1 job asked for 1 sample of digits:1: what was made stays" in planned.err
    assert genmill("model", "remove", "digits@champion", "--yes").code == 2


def test_a_hidden_version_keeps_its_files(genmill, services, pictures):
    job = train(services)
    before = stored(services)
    assert genmill("model", "remove", "painter:1", "--keep-artifacts", "--yes").code == 0
    assert genmill("model", "show", "painter:1").code == 4
    assert stored(services) == before
    assert violations(services) == []
    assert genmill("model", "remove", "painter:1", "--yes").code == 0
    assert f"jobs/{job}/manifest.json" in stored(services)
    assert len(stored(services)) == 1


def test_the_content_of_a_dataset_goes_when_nothing_names_it(genmill, services):
    reference = add_texts(genmill, "tale", "a girl")
    other = add_texts(genmill, "other", "a boy")
    kept = set(stored(services, "datasets"))
    again = add_texts(genmill, "tale", "a wolf")
    planned = genmill("dataset", "remove", again, "--dry-run", "--json").json
    fresh = set(stored(services, "datasets")) - kept
    assert planned["items"][0]["objects"] == len(fresh) > 0
    assert planned["size_bytes"] == sum((services.store.root / key).stat().st_size for key in fresh)
    done = genmill("dataset", "remove", again)
    assert (done.code, done.out) == (0, f"{again}\n")
    assert set(stored(services, "datasets")) == kept
    gone = genmill("dataset", "show", again)
    assert (gone.code, f"dataset {again} was removed on 20" in gone.err) == (4, True)
    assert genmill("dataset", "show", "tale", "--json").json["version"] == 1
    assert violations(services) == []
    assert add_texts(genmill, "tale", "a wolf") == again  # the same content is the same version
    assert set(stored(services, "datasets")) == kept | fresh
    assert genmill("dataset", "show", again).code == 0
    assert genmill("dataset", "remove", reference).code == 0
    assert genmill("dataset", "show", other).code == 0
    assert violations(services) == []


def test_what_a_model_was_trained_on_is_only_hidden_until_the_model_goes(genmill, services):
    reference = add_texts(genmill, "tale", "a girl")
    content = stored(services, "datasets")
    with services.database.write() as session:
        data = datasets.resolve(session, reference)[1].id
        rest = {"params": {}, "files": {}, "weights_sha256": "a" * 64, "metrics": {}}
        models.add_version(session, name="m", family="gpt", dataset_version_id=data, **rest)
    hidden = genmill("dataset", "remove", "tale")
    assert (hidden.code, hidden.out) == (0, f"{reference}\n")
    assert "is only hidden" in hidden.err
    assert "the model m:1 was trained on it" in hidden.err
    assert genmill("dataset", "list", "--json").json == []
    assert collect_datasets(services, older_than_s=-1) == 0
    assert stored(services, "datasets") == content
    assert genmill("model", "remove", "m:1", "--yes").code == 0
    assert genmill("dataset", "remove", reference).code == 0
    assert stored(services, "datasets") == []


def test_a_dataset_that_is_added_while_its_content_goes_stays_whole(genmill, services, monkeypatch):
    left = [add_texts(genmill, "tale", "a girl")]
    real = FolderStore.put_bytes

    def put_then_remove(store, prefix, data, **options):
        blob = real(store, prefix, data, **options)
        if prefix == "datasets/blobs" and left:  # the manifest, which comes last
            assert genmill("dataset", "remove", left.pop()).code == 0
            assert stored(services, "datasets") == []
        return blob

    monkeypatch.setattr(FolderStore, "put_bytes", put_then_remove)
    done = genmill("dataset", "add", "copy", "tale.txt")
    assert (done.code, done.out) == (0, "copy:1\n"), done.err
    assert violations(services) == []


def test_old_jobs_that_nothing_names_are_pruned(genmill, services, pictures, prose, tmp_path):
    trained, old, young = (
        train(services),
        *(make_samples(services, prose, 2, tmp_path) for _ in "ab"),
    )
    for job_id in (trained, old):
        services.database.transact(lambda session, job_id=job_id: age(session, job_id))
    words = ("db", "prune", "--kind", "jobs", "--older-than", "30d")
    planned = genmill(*words, "--dry-run", "--json").json
    assert planned["deleted"][-1]["rows"] == 1
    assert planned["held"] == {trained: ["it made the model painter:1"]}
    assert genmill(*words).code == 2
    done = genmill(*words, "--yes")
    assert (done.code, f"job {trained} stays: it made the model painter:1" in done.err) == (0, True)
    left = {job["id"] for job in genmill("job", "list", "--json").json}
    assert left == {trained, young}
    assert genmill("db", "prune", "--kind", "jobs").code == 2  # no setting gives an age
    some = genmill("db", "prune", "--kind", "logs", "--older-than", "1h", "--json").json
    assert {row["data"] for row in some["deleted"]} <= {"logs"}


def age(session, job_id: str) -> None:
    job = session.get(Job, job_id)
    job.finished_at = clock(session) - timedelta(days=90)


def test_the_cache_is_cleared_but_for_what_is_in_use(genmill, services):
    cache = Cache(services.settings.cache, limit_bytes=1 << 30)
    held = cache.hold("models", "a" * 64, lambda folder: (folder / "w").write_bytes(bytes(99)))
    cache.hold("datasets", "b" * 64, lambda folder: (folder / "d").write_bytes(bytes(50)))
    assert genmill("cache", "clear", "--dry-run", "--json").json["size_bytes"] == 149
    done = genmill("cache", "clear")
    assert (done.code, done.out) == (0, "50 B in 1 folder deleted\n")
    assert "1 folder in use stayed" in done.err
    assert (held.path / "w").stat().st_size == 99


def test_the_disk_report_says_what_takes_the_space(genmill, services, pictures, digits, tmp_path):
    made, trained = make_samples(services, digits, 5, tmp_path), train(services)
    add_texts(genmill, "tale", "a girl")
    stray = services.store.put_bytes("jobs/0/blobs", bytes(777))
    found = genmill("doctor", "--disk", "--json").json
    totals = {row["what"]: row["size_bytes"] for row in found["totals"]}
    on_disk = sum(services.store.stat(key).size for key in stored(services))
    assert totals["jobs"] + totals["models"] + stray.size >= on_disk
    assert totals["not on record"] == stray.size
    assert totals["database"] > 0
    names = {(row["kind"], row["name"]) for row in found["largest"]}
    assert {("job", made), ("model", "painter:1"), ("dataset", "tale:1")} <= names
    assert ("job", trained) in names  # its manifest
    shown = genmill("doctor", "--disk").out
    assert "LARGEST" in shown
    assert found["could_be_freed"][0]["what"] == "not on record"
    assert "COULD BE FREED" in shown
    assert genmill("doctor", "--disk", "--audit").code == 2


def test_the_disk_report_says_what_of_checkpoints_can_be_freed_and_how(genmill, services, pictures):
    spec = {"kind": "train", "family": "gan", "model": "m", "dataset": "pictures", "seed": 1}
    job = enqueue(services, parse_spec(spec))
    saved = services.store.put_bytes(f"jobs/{job.id}/blobs", bytes(3000))
    with services.database.write() as session:
        [shard] = jobs.shards_of(session, job.id)
        claim = shards.claim(session, shard.id, owner="0" * 36, lease_s=60)
        shards.add_checkpoint(session, claim, step=5, **vars(saved))

    def freed():
        rows = genmill("doctor", "--disk", "--json").json["could_be_freed"]
        return {row["what"]: (row["size_bytes"], row["by"]) for row in rows}

    assert freed() == {}  # it may still go on
    genmill("job", "cancel", job.id)
    with services.database.write() as session:
        session.get(Job, job.id).finished_at -= timedelta(hours=2)
    size, prune = freed()["checkpoints of ended jobs"]
    assert size == 3000
    assert genmill(*prune.split()[1:]).code == 0
    size, by = freed()["garbage"]
    assert (size, by.startswith("a scheduler, within an hour")) == (3000, True)
    collect_jobs(services)
    assert freed() == {}


def test_a_judge_is_held_only_as_long_as_something_is_measured_by_it(
    genmill, services, digits, tmp_path
):
    add_dataset(services)
    trainer = make_samples(services, digits, 2, tmp_path)
    judge = services.store.put_bytes(f"jobs/{trainer}/blobs", b"judge" * 99)
    with services.database.write() as session:
        evaluations.add_judge(
            session, dataset_version_id=datasets.resolve(session, "pets")[1].id, recipe="own-cnn",
            job_id=trainer, key=judge.key, sha256=judge.sha256, metrics={},
        )  # fmt: skip
    add_evaluation(services, "digits:1", images(1), judge=f"own-cnn:{judge.sha256}")
    disk = genmill("doctor", "--disk", "--json").json
    assert {"judges"} <= {row["what"] for row in disk["totals"]}
    held = genmill("job", "remove", trainer, "--yes")
    assert held.code == 2
    assert "by which the model digits:1 was measured" in held.err
    assert genmill("model", "remove", "digits", "--yes").code == 0
    waiting = genmill("enqueue", "evaluate", "digits", "--dataset", "pets")
    assert waiting.code == 4
    done = genmill("job", "remove", trainer, "--yes")
    assert done.code == 0, done.err
    assert judge.key not in stored(services)
