"""Batches of lines: what is refused, what is stored, and what a killed command leaves."""

import json
import multiprocessing
import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from db import batches, jobs
from db.errors import Refused
from scheduler.dispatch.garbage import collect_batches
from scheduler.submission.batch_lines import check_batch
from scheduler.submission.batches import discard, enqueue_batch, staged_batch
from scheduler.submission.enqueue import enqueue
from scheduler.submission.estimates import estimate_each
from worker.services import Services
from worker.specs import parse_spec

MANY = 8000  # lines: three pieces


def generate(**words):
    return {"kind": "generate", "model": "digits", "count": 10, **words}


def lines_of(count, **words):
    return (json.dumps(generate(seed=seed, **words)) for seed in range(count))


def count_jobs(services):
    with services.database.read() as session:
        return sum(jobs.counts(session).values())


def rows(services, table="jobs"):
    """The number of rows, of incomplete batches too."""
    with services.database.read() as session:
        return session.scalar(text(f"SELECT count(*) FROM {table}"))


def test_a_batch_is_stored_whole_and_keeps_its_custom_ids(services) -> None:
    lines = [
        json.dumps({**generate(seed=n), "custom_id": f"c{n}", "priority": n}) for n in range(3)
    ]
    batch = enqueue_batch(services, [*lines, "", "  "], idempotency_key="b")
    with services.database.read() as session:
        made = batches.jobs_of(session, batch.id)
    assert [(job.custom_id, job.priority) for job in made] == [("c0", 0), ("c1", 1), ("c2", 2)]
    assert enqueue_batch(services, lines, idempotency_key="b").id == batch.id
    assert count_jobs(services) == 3


def test_a_batch_with_wrong_lines_names_them_and_stores_nothing(services) -> None:
    good = json.dumps(generate())
    lines = [
        good,
        "{",
        json.dumps(generate(model="nope")),
        "[1]",
        json.dumps({**generate(), "custom_id": "a"}),
        json.dumps({**generate(), "custom_id": "a"}),
        json.dumps({**generate(), "priority": "high"}),
        '{"kind": "generate", "model": "digits", "count": NaN}',
    ]
    with pytest.raises(Refused) as error:
        enqueue_batch(services, lines)
    told = [line.partition(":")[0] for line in str(error.value).splitlines()[1:]]
    assert told == ["line 2", "line 3", "line 4", "line 6", "line 7", "line 8"]
    assert count_jobs(services) == 0


def test_an_empty_batch_is_refused(services) -> None:
    with pytest.raises(Refused, match="0 jobs"):
        enqueue_batch(services, ["", "\n"])


def test_lines_of_an_openai_batch_become_generate_jobs(services) -> None:
    body = {"model": "chatty", "messages": [{"role": "user", "content": "Hi"}], "n": 2, "seed": 4}
    line = {"custom_id": "r1", "method": "POST", "url": "/v1/chat/completions", "body": body}
    (request,) = check_batch(services, [json.dumps(line)])
    spec = request.pinned.spec
    assert (request.columns["custom_id"], spec.count, spec.seed) == ("r1", 2, 4)
    assert [prompt.prompt for prompt in spec.prompts] == ["Hi"]
    assert next(estimate_each(services, [request])).shards == 1


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ({"url": "/v1/embeddings", "body": {}}, "embeddings"),
        ({"url": ["/v1/completions"], "body": {}}, "url: expected POST"),
        ({"url": "/v1/completions", "body": {"logprobs": 1}}, "body.logprobs"),
        ({"url": "/v1/chat/completions", "body": {"messages": "x"}}, "messages"),
    ],
)
def test_an_openai_line_that_we_cannot_serve_is_refused_by_name(services, line, says) -> None:
    with pytest.raises(Refused, match=says):
        list(check_batch(services, [json.dumps(line)]))


def test_a_line_is_read_once_so_a_file_may_change_afterwards(services) -> None:
    lines = lines_of(3)
    assert enqueue_batch(services, lines).size == 3
    assert next(lines, None) is None


def test_equal_settings_are_pinned_alike_and_differ_in_seeds(services) -> None:
    batch = enqueue_batch(services, lines_of(3, model="digits@latest", label="cat"))
    alone = enqueue(services, parse_spec(generate(seed=1, label="cat")))
    with services.database.read() as session:
        made = batches.jobs_of(session, batch.id, with_spec=True)
    assert [job.spec["seed"] for job in made] == [0, 1, 2]
    assert {job.spec["model"] for job in made} == {"digits:1"}
    assert (made[1].spec, made[1].spec_hash) == (alone.spec, alone.spec_hash)


def test_prompts_are_checked_on_every_line(services) -> None:
    good = generate(model="imported")
    lines = [good, good | {"prompts": [{"prompt": "x" * 20_000}] * 1100}]
    with pytest.raises(Refused, match="line 2: the prompts have"):
        enqueue_batch(services, map(json.dumps, lines))


def test_other_writers_get_a_turn_between_pieces_and_see_none_of_the_jobs(services) -> None:
    seen = []

    def write(what, done, total):
        if what == "jobs stored":
            with services.database.write() as session:
                seen.append((done, total, sum(jobs.counts(session).values())))

    enqueue_batch(services, lines_of(MANY), show=write)
    assert seen == [(3000, MANY, 0), (6000, MANY, 0), (MANY, MANY, 0)]
    assert count_jobs(services) == MANY


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupted_batch_leaves_nothing_behind(services, error) -> None:
    def interrupt(what, done, total):
        if what == "jobs stored" and done > 3000:
            raise error

    with pytest.raises(error):
        enqueue_batch(services, lines_of(MANY), show=interrupt)
    assert [rows(services, table) for table in ("batches", "jobs", "shards", "transitions")] == [
        *(0, 0, 0, 0)
    ]


def kill_after_first_piece(settings, key):
    def kill(what, done, total):
        if what == "jobs stored":
            os.kill(os.getpid(), signal.SIGKILL)

    enqueue_batch(Services(settings), lines_of(MANY), idempotency_key=key, show=kill)


def kill_submission(services, key=None):
    process = multiprocessing.get_context("fork").Process(
        target=kill_after_first_piece, args=(services.settings, key)
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def test_what_a_killed_command_left_is_invisible_and_deleted_after_a_while(services) -> None:
    kill_submission(services)
    assert (rows(services), count_jobs(services)) == (3000, 0)
    assert collect_batches(services) == 0
    assert collect_batches(services, older_than_s=-1) == 3000
    assert [rows(services, table) for table in ("batches", "jobs")] == [0, 0]


def test_the_next_command_with_its_key_deletes_what_a_killed_one_left(
    services, monkeypatch
) -> None:
    kill_submission(services, "k")
    with pytest.raises(Refused, match="being submitted"):
        enqueue(services, parse_spec(generate(seed=0)), idempotency_key="k")
    monkeypatch.setattr("scheduler.submission.batches.ABANDONED_S", -1)
    batch = enqueue_batch(services, lines_of(MANY), idempotency_key="k")
    assert (rows(services), count_jobs(services), batch.size) == (MANY, MANY, MANY)


def test_two_who_submit_one_key_at_once_get_the_same_batch(services) -> None:
    def submit(_):
        return enqueue_batch(services, lines_of(MANY), idempotency_key="k").id

    with ThreadPoolExecutor(3) as pool:
        assert len(set(pool.map(submit, range(3)))) == 1
    assert rows(services) == count_jobs(services) == MANY


def test_a_key_used_for_other_lines_is_refused(services) -> None:
    enqueue_batch(services, lines_of(3), idempotency_key="k")
    for lines, says in (
        (lines_of(2), "batch .* of 3 jobs, not 2"),
        (lines_of(3, label="cat"), "differs in label"),
        (lines_of(3, params={"temperature": 0.5}), "differs in params.temperature"),
    ):
        with pytest.raises(Refused, match=says):
            enqueue_batch(services, lines, idempotency_key="k")
    assert count_jobs(services) == 3


def test_the_key_of_a_single_job_is_refused_for_a_batch(services) -> None:
    enqueue(services, parse_spec(generate()), idempotency_key="k")
    with pytest.raises(Refused, match="belongs to a single job"):
        enqueue_batch(services, lines_of(1), idempotency_key="k")


def test_a_staged_batch_that_nobody_completes_is_deleted(services) -> None:
    with staged_batch(services, lines_of(3), {}) as batch_id:
        assert (rows(services), count_jobs(services)) == (3, 0)
    assert rows(services) == 0
    assert discard(services, batch_id) == 0


def test_a_staged_batch_that_is_completed_stays(services) -> None:
    with staged_batch(services, lines_of(3), {"schedule_id": "s", "priority": 2}) as batch_id:
        services.database.transact(lambda session: batches.complete(session, batch_id))
    with services.database.read() as session:
        made = jobs.listing(session, schedule="s")
    assert [job.priority for job in made] == [2, 2, 2]


def test_who_meets_a_key_of_a_command_that_gives_up_stores_its_own(services, monkeypatch) -> None:
    def refuse(*_, **__):
        monkeypatch.undo()
        raise IntegrityError("", {}, Exception("as of a batch that is deleted at once"))

    monkeypatch.setattr("scheduler.submission.batches.insert_piece", refuse)
    batch = enqueue_batch(services, lines_of(3), idempotency_key="k")
    assert (batch.size, count_jobs(services)) == (3, 3)
