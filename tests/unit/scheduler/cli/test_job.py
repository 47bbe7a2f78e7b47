import threading

import pytest

from db import jobs, shards
from scheduler.cli.watching import describe_progress


@pytest.fixture
def queued(genmill, digits) -> str:
    return genmill("enqueue", "generate", digits, "--count", "4").out.strip()


def test_list_is_newest_first_and_filters(genmill, digits, queued):
    later = genmill("enqueue", "generate", digits, "--count", "1").out.strip()
    genmill("job", "cancel", queued)

    def listed(*filters):
        return [row["id"] for row in genmill("job", "list", "--json", *filters).json]

    assert listed() == [later, queued]
    assert listed("--limit", "1") == [later]
    assert listed("--before", later) == [queued]
    assert listed("--status", "cancelled") == [queued]
    assert listed("--kind", "train") == []
    assert listed("--model", "digits", "--since", "1h") == [later, queued]


def test_list_in_a_pipe_is_plain_aligned_text(genmill, queued):
    first, second = genmill("job", "list").out.splitlines()
    assert first.split() == ["ID", "KIND", "MODEL", "STATUS", "PROGRESS", "CREATED_AT"]
    assert second.split()[:4] == [queued, "generate", "digits", "queued"]
    assert "0/4 samples" in second
    assert "\x1b" not in first + second


def test_an_empty_list_is_empty_on_stdout(genmill):
    empty = genmill("job", "list")
    assert (empty.code, empty.out, empty.err) == (0, "", "nothing to show\n")


def test_show_tells_spec_shards_history_and_losses(genmill, services, queued):
    with services.database.write() as session:
        jobs.add_points(session, queued, 5, {"loss": 0.25})
    shown = genmill("job", "show", queued[:-2], "--json").json
    assert [shard["stop"] for shard in shown["shards"]] == [4]
    assert shown["metrics"] == {"loss": 0.25}
    assert shown["transitions"][0]["new"] == "queued"
    text = genmill("job", "show", queued).out
    assert "SHARDS" in text
    assert "loss=0.25" in text


def test_an_ambiguous_prefix_is_refused_with_candidates(genmill, digits, queued):
    other = genmill("enqueue", "generate", digits, "--count", "1").out.strip()
    wrong = genmill("job", "show", queued[0])
    assert wrong.code == 2
    assert queued in wrong.err
    assert other in wrong.err


def test_wait_is_silent_and_succeeds_with_the_job(genmill, picture_job):
    done = genmill("job", "wait", picture_job)
    assert (done.code, done.out) == (0, "")


def test_wait_fails_with_the_reason_of_a_job_that_did_not_succeed(genmill, services, queued):
    fail(services, queued, "the weights are broken")
    failed = genmill("job", "wait", queued)
    assert failed.code == 1
    assert f"Error: job {queued} failed" in failed.err
    assert "the weights are broken" in failed.err


def test_wait_ends_when_the_job_does(genmill, commit, queued):
    worker = threading.Thread(target=commit, args=[queued])
    worker.start()
    assert genmill("job", "wait", queued).code == 0
    worker.join()


def test_waiting_without_a_worker_says_what_to_start(genmill, queued, caplog):
    genmill("job", "cancel", queued)
    genmill("job", "wait", queued)
    assert "genmill up" in caplog.text


def test_watch_in_a_pipe_is_a_line_a_change(genmill, picture_job):
    seen = genmill("job", "watch", picture_job)
    assert (seen.code, seen.out) == (0, f"{picture_job}  succeeded 5/5 samples\n")


def test_watch_json_is_an_object_a_line(genmill, picture_job):
    assert genmill("job", "watch", picture_job, "--json").json["status"] == "succeeded"


def test_cancel_ends_a_job_once(genmill, queued):
    assert genmill("job", "cancel", queued).out == f"{queued}\n"
    again = genmill("job", "cancel", queued)
    assert (again.code, again.out) == (0, "")
    assert "already ended" in again.err
    assert genmill("job", "show", queued, "--json").json["status"] == "cancelled"


def test_retry_is_a_new_job_linked_to_the_old_one(genmill, services, queued):
    fail(services, queued, "no")
    new = genmill("job", "retry", queued).out.strip()
    shown = genmill("job", "show", new, "--json").json
    assert (shown["retry_of"], shown["status"]) == (queued, "queued")


def test_retry_of_a_job_that_succeeded_is_refused(genmill, picture_job):
    assert genmill("job", "retry", picture_job).code == 2


def test_logs_are_lines_without_control_characters(genmill, services, queued):
    with services.database.write() as session:
        jobs.log(session, queued, "step 5: loss \x1b[31m1.25\nand on")
    assert genmill("job", "logs", queued).out.endswith("info    step 5: loss [31m1.25 and on\n")
    assert genmill("job", "logs", queued, "--json").json["message"].startswith("step 5")


def fail(services, job_id: str, reason: str) -> None:
    with services.database.write() as session:
        (shard,) = jobs.shards_of(session, job_id)
        claim = shards.claim(session, shard.id, owner="0" * 36, lease_s=60)
        shards.fail(session, claim, reason, final=True, max_failures=1, backoff_s=0)


@pytest.mark.parametrize(
    ("done", "total", "unit", "text"),
    [
        (36.1941, 300, "s", "36.2/300 s"),
        (1234567, 100000000, "samples", "1234567/100000000 samples"),
        (31.6, 100, "%", "31.6%"),
        (None, None, "", ""),
    ],
)
def test_progress_is_in_plain_numbers(done, total, unit, text):
    assert describe_progress({"done": done, "total": total, "unit": unit}) == text


def test_long_prompts_are_shown_by_show_and_named_by_list(genmill, prose):
    words = [word for n in range(200) for word in ("--prompt", f"a prompt of some length {n}")]
    made = genmill("enqueue", "generate", prose, "--count", "2", *words)
    assert made.code == 0, made.err
    shown = genmill("job", "show", made.out.strip(), "--json").json["spec"]["prompts"]
    assert [each["prompt"] for each in shown] == words[1::2]
    (listed,) = genmill("job", "list", "--json").json
    assert listed["spec"]["prompts_count"] == 200
    assert genmill("job", "list").code == genmill("job", "show", made.out.strip()).code == 0
