import json
from pathlib import Path

import pytest
from sqlalchemy import text

ADD = ("schedule", "add", "nightly", "--cron", "0 3 * * *")
MAKE = ("--", "enqueue", "generate", "digits", "--count", "2", "--set", "truncation=0.5")


def test_a_schedule_keeps_the_words_after_the_dashes(genmill, digits):
    added = genmill(*ADD, "--timezone", "Europe/Berlin", "--json", *MAKE)
    assert added.code == 0, added.err
    assert added.json["command"] == list(MAKE[1:])
    assert added.json["next_due"].endswith("Z")
    (row,) = genmill("schedule", "list", "--json").json
    assert (row["name"], row["timezone"], row["missed"]) == ("nightly", "Europe/Berlin", "skip")


def test_trigger_prints_the_job_that_it_made(genmill, digits):
    genmill(*ADD, *MAKE)
    job = genmill("schedule", "trigger", "nightly").out.strip()
    shown = genmill("job", "show", job, "--json").json
    assert (shown["spec"]["count"], shown["spec"]["params"]["truncation"]) == (2, 0.5)
    (run,) = genmill("schedule", "show", "nightly", "--json").json["runs"]
    assert (run["outcome"], run["job"]) == ("triggered", job)
    assert [
        row["id"] for row in genmill("job", "list", "--schedule", "nightly", "--json").json
    ] == [job]


def test_pause_resume_and_remove(genmill, digits):
    genmill(*ADD, *MAKE)
    assert genmill("schedule", "pause", "nightly", "--json").json["paused"] is True
    assert genmill("schedule", "pause", "nightly").out == "nightly  paused\n"
    assert genmill("schedule", "resume", "nightly", "--json").json["paused"] is False
    assert genmill("schedule", "remove", "nightly").out == "nightly\n"
    assert genmill("schedule", "list", "--json").json == []


@pytest.mark.parametrize(
    ("column", "noun"),
    [
        ("cron", "a cron expression"),
        ("timezone", "a time zone"),
        ("missed", "skip or once"),
        ("overlap", "skip or queue"),
    ],
)
def test_a_schedule_whose_rules_were_damaged_is_shown_as_damaged(
    genmill, services, digits, column, noun
):
    genmill(*ADD, *MAKE)
    genmill("schedule", "add", "weekly", "--cron", "@weekly", *MAKE)
    with services.database.write() as session:
        session.execute(text(f"UPDATE schedules SET {column} = '7o' WHERE name = 'nightly'"))
    listed = genmill("schedule", "list", "--json")
    assert (listed.code, [each["name"] for each in listed.json]) == (1, ["weekly"])
    why = f"the record holds '7o' where {noun} belongs; it was damaged or edited"
    assert f"schedule nightly: {why}" in listed.err
    for verb in ("show", "resume"):
        refused = genmill("schedule", verb, "nightly")
        assert (refused.code, why in refused.err) == (1, True)
    assert genmill("schedule", "remove", "nightly").code == 0
    assert genmill("schedule", "list").code == 0


def test_files_of_a_repeated_command_are_kept_by_their_full_path(genmill, prose, tmp_path):
    Path("prompts.jsonl").write_text(json.dumps({"prompt": "Hi"}) + "\n")
    words = ("--", "enqueue", "generate", "prose", "--prompts", "prompts.jsonl")
    kept = genmill(*ADD, "--json", *words).json["command"]
    assert kept[-1] == str(tmp_path / "prompts.jsonl")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--", "enqueue", "generate", "digtis", "--count", "1"], 4, "'digits'"),
        (["--", "enqueue", "generate", "digits", "--count", "0"], 2, "count"),
        (["--", "enqueue", "generate", "digits", "--cuont", "1"], 2, "--count"),
        (["--", "enqueue", "generate", "digits", "--count", "1", "--wait"], 2, "--wait"),
        (["--", "enqueue", "generate", "digits", "--help"], 2, "--help"),
        (["--", "job", "list"], 2, "not an enqueue command"),
        (["--timezone", "Europe/Berlni", *MAKE], 2, "'Europe/Berlin'"),
        ([], 2, "Missing"),
    ],
)
def test_what_a_schedule_repeats_is_checked_when_it_is_added(genmill, digits, words, code, says):
    wrong = genmill(*ADD, *words)
    assert (wrong.code, wrong.out, wrong.err.count("\n")) == (code, "", 1), wrong.err
    assert says.lower() in wrong.err.lower()
    assert genmill("schedule", "list", "--json").json == []


def test_a_cron_expression_that_is_none_is_refused_with_an_example(genmill, digits):
    wrong = genmill("schedule", "add", "n", "--cron", "whenever", *MAKE)
    assert wrong.code == 2
    assert "'0 3 * * *'" in wrong.err
