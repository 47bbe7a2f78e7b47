import io
import json
from pathlib import Path

import pytest

from scheduler.output.render import clean


def test_enqueue_prints_the_id_alone(genmill, digits):
    made = genmill("enqueue", "generate", digits, "--count", "3", "--label", "cat")
    assert made.code == 0
    job = genmill("job", "show", made.out.strip(), "--json").json
    assert (job["status"], job["kind"], job["model"]) == ("queued", "generate", "digits")
    assert (job["spec"]["model"], job["spec"]["label"]) == ("digits:1", "cat")


def test_a_broker_that_is_down_is_a_warning_for_the_job_is_safe(genmill, digits):
    made = genmill("enqueue", "generate", digits, "--count", "3")
    assert made.code == 0
    assert len(genmill("job", "list", "--json").json) == 1


def test_json_gives_the_whole_job(genmill, digits):
    made = genmill("enqueue", "generate", digits, "--count", "3", "--priority", "5", "--json").json
    assert (made["priority"], made["progress"]["total"]) == (5, 3)
    assert made["created_at"].endswith("Z")


def test_dry_run_shows_the_pinned_spec_and_stores_nothing(genmill, pictures):
    words = ("enqueue", "train", "gan", "--dataset", pictures, "--name", "m", "--dry-run")
    plan = genmill(*words, "--set", "loss=hinge", "--max-seconds", "30", "--json").json
    assert plan["spec"]["dataset"] == "pictures:1"
    assert plan["spec"]["params"]["loss"] == "hinge"
    assert plan["spec"]["params"]["batch_size"] == 64
    assert (plan["shards"], plan["seconds"]) == (1, 30)
    assert "about 30s of one worker" in genmill(*words, "--max-seconds", "30").out
    assert genmill("job", "list", "--json").json == []


def test_values_of_set_are_json_where_they_parse(genmill, prose):
    words = ("--set", 'stop=["\\n", "end"]', "--set", "top_k=5", "--set", "temperature=0.5")
    made = genmill("enqueue", "generate", prose, "--count", "1", "--json", *words)
    assert made.code == 0, made.err
    params = made.json["spec"]["params"]
    assert (params["stop"], params["top_k"], params["temperature"]) == (["\n", "end"], 5, 0.5)


def test_prompts_of_a_file_are_counted_when_no_count_is_given(genmill, prose):
    Path("p.jsonl").write_text(
        '{"prompt": "春眠", "custom_id": "a"}\n\n"Once upon"\n', encoding="utf-8"
    )
    spec = genmill("enqueue", "generate", prose, "--prompts", "p.jsonl", "--json").json["spec"]
    assert spec["count"] == 2
    assert spec["prompts"] == [
        {"prompt": "春眠", "custom_id": "a"},
        {"prompt": "Once upon", "custom_id": None},
    ]


def given(monkeypatch, text):
    """Make `text` the standard input."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


def test_prompts_are_read_from_the_standard_input(genmill, prose, monkeypatch):
    given(monkeypatch, '"one"\n{"prompt": "two"}\n')
    spec = genmill("enqueue", "generate", prose, "--prompts", "-", "--json").json["spec"]
    assert [prompt["prompt"] for prompt in spec["prompts"]] == ["one", "two"]
    given(monkeypatch, "")
    wrong = genmill("enqueue", "generate", prose, "--prompts", "-")
    assert (wrong.code, "standard input: no lines" in wrong.err) == (2, True)


def test_a_batch_is_read_from_the_standard_input(genmill, digits, monkeypatch):
    line = json.dumps({"kind": "generate", "model": "digits", "count": 1})
    given(monkeypatch, f"{line}\n\n{line}\n")
    batch = genmill("enqueue", "batch", "-").out.strip()
    assert len(genmill("job", "list", "--batch", batch, "--json").json) == 2
    given(monkeypatch, f"{line}\nno JSON\n")
    assert "line 2: not JSON" in genmill("enqueue", "batch", "-").err
    given(monkeypatch, f"{line}\n")
    assert genmill("enqueue", "batch", "-", "--dry-run", "--json").json[0]["spec"]["count"] == 1


def test_a_schedule_reads_no_standard_input(genmill, prose, monkeypatch):
    for words in (("generate", prose, "--prompts", "-"), ("batch", "-")):
        given(monkeypatch, '"one"')
        wrong = genmill("schedule", "add", "s", "--cron", "@daily", "--", "enqueue", *words)
        assert (wrong.code, "cannot read the standard input" in wrong.err) == (2, True)


def test_a_dry_run_names_no_seed_that_is_not_given(genmill, prose):
    words = ("enqueue", "generate", prose, "--count", "1", "--dry-run", "--json")
    assert genmill(*words).json["spec"]["seed"] is None
    assert genmill(*words, "--seed", "7").json["spec"]["seed"] == 7


def test_help_says_what_is_done_without_a_seed(genmill):
    for kind in ("train", "finetune", "generate"):
        assert "a fresh one" in " ".join(genmill("enqueue", kind, "--help").out.split())


def test_a_wrong_line_of_a_prompts_file_is_named(genmill, prose):
    Path("p.jsonl").write_text('{"prompt": "a"}\n{"text": "b"}\n')
    wrong = genmill("enqueue", "generate", prose, "--prompts", "p.jsonl")
    assert wrong.code == 2
    assert "p.jsonl: line 2" in wrong.err


def test_prompts_that_are_not_utf_8_are_refused(genmill, prose):
    Path("p.jsonl").write_bytes(b'{"prompt": "caf\xe9"}\n')
    wrong = genmill("enqueue", "generate", prose, "--prompts", "p.jsonl")
    assert wrong.code == 2
    assert "line 1: not UTF-8 at byte 15 of the line; convert it; it looks like" in wrong.err


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_prompts_and_batches_may_begin_with_a_mark_of_their_encoding(genmill, prose, encoding):
    Path("p.jsonl").write_text('{"prompt": "žába"}\n"two"\n', encoding)
    job = genmill("enqueue", "generate", prose, "--prompts", "p.jsonl", "--json").json
    assert len(job["spec"]["prompts"]) == 2
    line = json.dumps({"kind": "generate", "model": prose, "count": 1})
    Path("b.jsonl").write_text(f"{line}\r\n{line}\r\n", encoding)
    assert len(genmill("enqueue", "batch", "b.jsonl", "--json").json["jobs"]) == 2


def test_a_batch_is_all_or_nothing_and_names_the_wrong_lines(genmill, digits):
    good = {"kind": "generate", "model": "digits", "count": 1}
    rows = [good, good | {"count": 0}, good | {"model": "digtis"}, good]
    Path("b.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\nnonsense\n")
    wrong = genmill("enqueue", "batch", "b.jsonl")
    assert (wrong.code, wrong.out) == (2, "")
    assert "line 2: " in wrong.err
    assert "line 3: no model 'digtis' (did you mean 'digits'?)" in wrong.err
    assert "line 5: not JSON" in wrong.err
    assert genmill("job", "list", "--json").json == []


def test_a_batch_prints_its_id_and_echoes_custom_ids(genmill, digits):
    row = {"kind": "generate", "model": "digits", "count": 1}
    lines = [json.dumps(row | {"custom_id": name}) for name in ("a", "b")]
    Path("b.jsonl").write_text("\n".join(lines))
    batch = genmill("enqueue", "batch", "b.jsonl", "--idempotency-key", "once").out.strip()
    listed = genmill("job", "list", "--batch", batch, "--json").json
    assert sorted(job["custom_id"] for job in listed) == ["a", "b"]
    again = genmill("enqueue", "batch", "b.jsonl", "--idempotency-key", "once").out.strip()
    assert again == batch


def test_dry_run_of_a_batch_tells_the_cost_of_all(genmill, digits):
    Path("b.jsonl").write_text('{"kind": "generate", "model": "digits", "count": 100}\n' * 3)
    assert "about 6s of one worker" in genmill("enqueue", "batch", "b.jsonl", "--dry-run").out
    assert genmill("job", "list", "--json").json == []


def test_what_a_model_is_called_cannot_drive_the_terminal():
    assert clean("a\x1b[2Jb\x9b\u202ec\nd") == "a[2Jbc d"


def train(family):
    return ("enqueue", "train", family, "--dataset", "pictures", "--name", "new")


@pytest.mark.parametrize("words", [train("vae"), (*train("vae"), "--dry-run")])
def test_a_name_that_a_queued_job_will_give_to_another_family_is_refused(genmill, pictures, words):
    first = genmill(*train("gan")).out.strip()
    wrong = genmill(*words)
    assert (wrong.code, wrong.err.count("\n")) == (2, 1)
    assert f"model 'new', which job {first} will create, is of family 'gan'" in wrong.err
    assert genmill(*train("gan")).code == 0
    for job in genmill("job", "list", "--json").json:
        genmill("job", "cancel", job["id"])
    assert genmill(*words).code == 0


def test_a_name_that_two_lines_of_a_batch_give_to_two_families_is_refused(genmill, pictures):
    line = {"kind": "train", "dataset": "pictures", "model": "new"}
    lines = [line | {"family": family} for family in ("gan", "gan", "vae")]
    Path("jobs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for words in ([], ["--dry-run"]):
        wrong = genmill("enqueue", "batch", "jobs.jsonl", *words)
        assert wrong.code == 2
        assert "line 3: model 'new' is of family 'gan' on line 1, not 'vae'" in wrong.err
    assert genmill("job", "list", "--json").json == []
