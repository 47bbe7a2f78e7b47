"""What may be enqueued, what is stored of it, and how it is cut into shards."""

import json
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from db import datasets, jobs, rates, shards, workers
from db.columns import new_id
from db.errors import Gone, NotFound, Refused
from db.job_removal import remove_jobs
from scheduler.submission import enqueue as submission
from scheduler.submission.batches import enqueue_batch
from scheduler.submission.enqueue import prepare, retry
from scheduler.submission.estimates import estimate_each
from worker.services.finalize import finalize, settle
from worker.services.pinned import pin_model
from worker.specs import parse_spec


def train(**words):
    return {"kind": "train", "family": "vae", "model": "new", "dataset": "pets", **words}


def generate(**words):
    return {"kind": "generate", "model": "digits", "count": 10, **words}


def enqueue(services, spec, **how):
    return submission.enqueue(services, parse_spec(spec), **how)


def plan(services, spec):
    return next(estimate_each(services, [prepare(services, parse_spec(spec))]))


def ranges(services, job):
    with services.database.read() as session:
        return [(shard.start, shard.stop) for shard in jobs.shards_of(session, job.id)]


def count_jobs(services):
    with services.database.read() as session:
        return sum(jobs.counts(session).values())


def test_a_job_is_stored_though_no_broker_answers(services, caplog) -> None:
    job = enqueue(services, generate())
    assert job.status == "queued"
    assert "waits for the broker" in caplog.text


def test_stored_names_are_pinned_and_parameters_complete(services) -> None:
    job = enqueue(services, train(params={"latent": 5}))
    assert job.spec["dataset"] == "pets:1"
    assert job.spec["params"]["latent"] == 5
    assert job.spec["params"].keys() > {"batch_size", "lr", "beta"}
    assert enqueue(services, generate(model="digits@latest")).spec["model"] == "digits:1"


def test_finetuning_starts_from_the_parents_parameters(services) -> None:
    spec = {"kind": "finetune", "model": "digits", "dataset": "pets", "params": {"lr": 0.5}}
    params = enqueue(services, spec).spec["params"]
    assert (params["latent"], params["lr"]) == (7, 0.5)


def test_the_spec_hash_depends_on_what_is_asked_and_not_on_how(services) -> None:
    first = enqueue(services, train(seed=1, max_steps=5))
    same = enqueue(services, dict(reversed(train(seed=1, max_steps=5).items())))
    other = enqueue(services, train(seed=2, max_steps=5))
    assert first.spec_hash == same.spec_hash != other.spec_hash


@pytest.mark.parametrize(
    ("spec", "error", "says"),
    [
        (train(family="vea"), NotFound, "did you mean 'vae'"),
        (train(dataset="pest"), NotFound, "did you mean 'pets'"),
        (train(params={"latnt": 3}), Refused, "did you mean 'latent'"),
        (train(params={"latent": -3}), Refused, "-3"),
        (train(dataset="prose"), Refused, "image datasets.*prose:1 is of kind text"),
        (train(model="imported"), Refused, "family 'gpt', not 'vae'"),
        (train(max_steps=0), Refused, "max_steps"),
        (generate(model="digit"), NotFound, "did you mean 'digits'"),
        (generate(model="digits:9"), NotFound, "'9'"),
        (generate(model="digits@best"), NotFound, "'best'"),
        (generate(label="cta"), Refused, "did you mean 'cat'"),
        (generate(model="plain", label="cat"), Refused, "without labels"),
        (generate(prompts=[{"prompt": "x"}]), Refused, "takes no prompts"),
        (generate(params={"temperatur": 1}), Refused, "did you mean 'temperature'"),
        (generate(count=0), Refused, "count"),
        (generate(count=-5), Refused, "-5"),
        (generate(count=10**12), Refused, "count"),
        ({"kind": "finetune", "model": "digits", "dataset": "birds"}, Refused, "'owl'.*cat, dog"),
    ],
)
def test_a_wrong_request_is_refused_by_name_and_nothing_stored(services, spec, error, says) -> None:
    with pytest.raises(error, match=says):
        enqueue(services, spec)
    assert count_jobs(services) == 0


@pytest.mark.parametrize(
    ("summary", "taken"),
    [
        ({"labels": [], "captions": True}, True),
        ({"labels": ["cat"], "captions": False}, True),
        ({"labels": []}, False),
        ({"labels": [], "captions": False}, False),
    ],
)
def test_a_family_of_captions_takes_captions_or_labels_and_nothing_less(
    services, summary, taken
) -> None:
    common = {"manifest_key": "datasets/blobs/x", "manifest_sha256": "1" * 64}
    services.database.transact(
        lambda s: datasets.add_version(s, name="art", kind="image", summary=summary, **common)
    )
    if taken:
        enqueue(services, train(family="text2image", dataset="art"))
    else:
        with pytest.raises(Refused, match=r"art:1 has neither captions .* metadata\.jsonl"):
            enqueue(services, train(family="text2image", dataset="art"))
    assert count_jobs(services) == taken


def test_more_prompts_than_a_job_may_hold_are_refused(services) -> None:
    prompts = [{"prompt": "x" * 20_000}] * 1100
    with pytest.raises(Refused, match="split them"):
        enqueue(services, generate(model="imported", prompts=prompts))


def test_a_priority_beyond_reason_is_refused(services) -> None:
    with pytest.raises(Refused, match="priority"):
        enqueue(services, generate(), priority=10**9)


@pytest.mark.parametrize(
    ("model", "count", "first"),
    [
        # a third of 100 a second for 10 s, up to whole micro-batches of 64
        ("digits", 5000, (0, 384)),
        ("digits", 90, (0, 90)),  # less than three seconds
        ("digits", 1000, (0, 128)),  # four for each of two workers
        ("plain", 300, (0, 64)),  # never less than a micro-batch
    ],
)
def test_shards_are_sized_by_the_models_speed(services, model, count, first) -> None:
    cut = ranges(services, enqueue(services, generate(model=model, count=count)))
    assert cut[0] == first
    assert [start for start, _ in cut[1:]] == [stop for _, stop in cut[:-1]]
    assert cut[-1][1] == count


@pytest.mark.parametrize(("live", "least"), [(1, 4), (2, 8), (16, 64)])
def test_every_live_worker_gets_several_shards_at_the_rate_that_was_learnt(
    services, live, least
) -> None:
    spec = generate(count=40_000)
    key = prepare(services, parse_spec(spec)).pinned.work_key
    services.database.transact(lambda session: rates.learn(session, key, 2000.0))
    with services.database.write() as session:
        for number in range(live):
            boot = {"boot_id": str(number), "host": "h", "pid": number, "device": "cpu"}
            workers.start(session, **boot)
    request = prepare(services, parse_spec(spec))
    sizes = {stop - start for start, stop in request.ranges[:-1]}
    assert 0.95 * least <= len(request.ranges) <= 1.3 * least
    assert all(size % 64 == 0 for size in sizes)
    assert next(estimate_each(services, [request])).seconds == 20


def test_other_settings_have_another_rate(services) -> None:
    key = prepare(services, parse_spec(generate())).pinned.work_key
    services.database.transact(lambda session: rates.learn(session, key, 1000.0))
    same = prepare(services, parse_spec(generate(seed=5, label="cat")))
    other = prepare(services, parse_spec(generate(params={"temperature": 0.5})))
    assert (same.rate, round(other.rate)) == (1000, 33)


def test_a_huge_job_has_a_bounded_number_of_shards(services) -> None:
    request = prepare(services, parse_spec(generate(model="plain", count=100_000_000)))
    assert len(request.ranges) <= 100_000
    with pytest.raises(Refused, match="at least 1000"):
        prepare(services, parse_spec(generate(count=100_000_000)), shard_size=10)


def test_a_training_is_one_shard(services) -> None:
    assert ranges(services, enqueue(services, train())) == [(0, 1)]


def test_the_same_idempotency_key_gives_the_same_job(services) -> None:
    first = enqueue(services, generate(), idempotency_key="k")
    assert enqueue(services, generate(), idempotency_key="k").id == first.id
    assert count_jobs(services) == 1


def test_two_who_use_one_key_at_once_get_the_same_job(services) -> None:
    def ask(_):
        return enqueue(services, generate(), idempotency_key="k").id

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(ask, range(8)))) == 1


def test_a_key_used_for_another_request_is_refused(services) -> None:
    enqueue(services, generate(), idempotency_key="k")
    with pytest.raises(Refused, match="belongs to job"):
        enqueue(services, generate(seed=9), idempotency_key="k")


def test_an_estimate_stores_nothing(services) -> None:
    made = plan(services, generate(count=5000))
    assert (made.shards, round(made.seconds), made.bytes) == (14, 150, None)
    assert plan(services, train(max_seconds=30)).seconds == 30
    assert count_jobs(services) == 0


def test_an_estimate_of_bytes_counts_the_samples_that_a_job_made_and_not_those_it_named(
    services,
) -> None:
    job = enqueue(services, generate(count=100), ranges=[(7, 8)])
    services.database.transact(lambda session: commit_only_shard(session, job.id, size=50))
    assert finalize(services, settle(services, [job.id]))
    assert plan(services, generate(count=4)).bytes == 200


def commit_only_shard(session, job_id, *, size):
    (shard,) = jobs.shards_of(session, job_id)
    claim = shards.claim(session, shard.id, owner="w", lease_s=60)
    about = {"kind": "samples", "name": "samples.tar", "media_type": "application/x-tar"}
    index = shards.NewIndex(range(claim.start, claim.stop), "0" * 64, data=bytes(44))
    made = shards.NewArtifact(**about, key="k", sha256="0" * 64, size=size, index=index)
    shards.commit(session, claim, [made])


def test_a_stored_spec_is_read_back_as_it_was_pinned(services) -> None:
    for spec in (train(), {"kind": "finetune", "model": "digits", "dataset": "pets"}, generate()):
        job = enqueue(services, spec)
        with services.database.read() as session:
            pinned = pin_model(session, parse_spec(job.spec))
        assert (pinned.data, pinned.sha256, pinned.model) == (job.spec, job.spec_hash, job.model)
        fields = type(pinned.spec).model_fields.keys() - {"accept", "marks", "format"}
        assert [*pinned.data] == [name for name in type(pinned.spec).model_fields if name in fields]


def test_a_retry_holds_what_did_not_succeed(services) -> None:
    job = enqueue(services, generate(count=30), shard_size=10)
    services.database.transact(lambda session: fail_second_shard(session, job.id))
    with services.database.read() as session:
        failed = jobs.get(session, job.id)
    again = retry(services, failed)
    assert (again.retry_of, again.spec) == (job.id, job.spec)
    assert ranges(services, again) == [(0, 10), (10, 20), (20, 30)]


@pytest.mark.parametrize("rules", [{}, {"model": "imported", "accept": "length>=2"}])
def test_a_retry_is_of_the_same_schedule_with_the_same_priority(services, rules) -> None:
    terms = {"schedule_id": new_id(), "priority": 3, "custom_id": "a"}
    job = enqueue(services, generate(**rules), **terms)
    services.database.transact(lambda session: jobs.cancel(session, job.id))
    with services.database.read() as session:
        cancelled = jobs.get(session, job.id)
    again = retry(services, cancelled)
    assert {name: getattr(again, name) for name in terms} == terms
    assert (again.retry_of, again.wanted) == (job.id, job.wanted)


def fail_second_shard(session, job_id):
    shard = jobs.shards_of(session, job_id)[1]
    claim = shards.claim(session, shard.id, owner="w", lease_s=60)
    shards.fail(session, claim, "no", final=True, max_failures=3, backoff_s=0)


def test_a_job_cancelled_after_its_last_shard_has_nothing_to_retry(services) -> None:
    job = enqueue(services, train())
    with services.database.write() as session:
        (shard,) = jobs.shards_of(session, job.id)
        claim = shards.claim(session, shard.id, owner="w", lease_s=60)
        shards.commit(session, claim, [])
        jobs.cancel(session, job.id)
        cancelled = jobs.get(session, job.id)
    with pytest.raises(Refused, match="every shard succeeded"):
        retry(services, cancelled)
    assert count_jobs(services) == 1


@pytest.mark.parametrize("rules", [{}, {"model": "imported", "accept": "length>=2"}])
@pytest.mark.parametrize("early", [True, False])
def test_a_job_that_is_removed_meanwhile_is_not_retried(
    services, monkeypatch, rules, early
) -> None:
    job = enqueue(services, generate(**rules))
    assert (job.wanted is not None) == bool(rules)
    services.database.transact(lambda session: jobs.cancel(session, job.id))
    with services.database.read() as session:
        cancelled = jobs.get(session, job.id)
    remove = partial(remove_jobs, ids=[job.id], leaving={job.id}, who="ann@host", kept=False)
    if early:
        services.database.transact(remove)
    else:  # right before the retry is inserted
        real = submission.insert_or_find

        def remove_then_insert(*asked):
            services.database.transact(remove)
            return real(*asked)

        monkeypatch.setattr(submission, "insert_or_find", remove_then_insert)
    with pytest.raises(Gone, match=f"job {job.id} was removed"):
        retry(services, cancelled)
    assert count_jobs(services) == 0


def test_a_job_under_way_cannot_be_retried(services) -> None:
    with pytest.raises(Refused, match="queued"):
        retry(services, enqueue(services, generate()))


@pytest.mark.parametrize("key", ["", "k" * 201, "k\0", "k\ud800"])
def test_a_key_that_a_database_cannot_hold_is_refused(services, key) -> None:
    with pytest.raises(Refused, match="idempotency key"):
        enqueue(services, generate(), idempotency_key=key)
    line = json.dumps(generate())
    with pytest.raises(Refused, match="idempotency key"):
        enqueue_batch(services, [line], idempotency_key=key)
    with pytest.raises(Refused, match="line 1: custom_id"):
        enqueue_batch(services, [json.dumps(generate() | {"custom_id": key})])
    assert count_jobs(services) == 0


def test_a_key_used_with_another_count_is_refused(services) -> None:
    enqueue(services, generate(count=3), idempotency_key="k")
    with pytest.raises(Refused, match="differs in count"):
        enqueue(services, generate(count=4), idempotency_key="k")


def test_a_prompt_with_a_nul_is_refused_for_postgresql_cannot_keep_it(services) -> None:
    with pytest.raises(Refused, match="NUL"):
        enqueue(services, generate(prompts=[{"prompt": "a\0b"}]))
