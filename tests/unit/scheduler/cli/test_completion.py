"""What the shell is offered: names and ids from the record, and nothing at all on any error."""

import time
from pathlib import Path

import click
from click.shell_completion import ShellComplete

from scheduler.cli import cli, completion
from tests.unit.scheduler.cli.test_blame import leaves

# arguments that name nothing on record, or only new things
OTHERS = {
    *(("artifact url", "artifact_id"), ("artifact reproduce", "index")),
    *(("dataset withdraw", "items"), ("help", "words"), ("schedule add", "words")),
    *(("job priority", "priority"), ("job note", "text"), ("target add", "address")),
    ("target add", "kind"),
    ("key create", "purpose"),  # Click completes what may be chosen
}


def complete(line: str) -> list[str]:
    """What is offered for the last word of a line, which may be empty."""
    *words, last = line.split(" ")
    shell = ShellComplete(cli, {}, "genmill", "_GENMILL_COMPLETE")
    return [item.value for item in shell.get_completions(words, last)]


OFFERED = {
    "model show ": ["copy", "digits"],
    "model show di": ["digits"],
    "model show digits:": ["digits:1", "digits:2", "digits:3"],
    "model show digits@": ["digits@champion"],
    "model compare digits ": ["copy", "digits"],
    "enqueue generate ": ["copy", "digits"],
    "enqueue evaluate digits --dataset ": ["pictures"],
    "enqueue finetune digits --dataset=p": ["pictures"],
    "enqueue train v": ["vae"],
    "dataset show ": ["pictures"],
    "dataset show pictures:": ["pictures:1"],
    "schedule pause ": ["nightly"],
    "target show ": ["shelf"],
    "publish digits --target ": ["shelf"],
    "enqueue generate digits --publish ": ["shelf"],
    "job list --schedule ": ["nightly"],
    "job list --model c": ["copy"],
    "job list --json id,st": ["id,status", "id,started_at", "id,stop_asked_at"],
    "family show w": ["wavenet"],
    "template show su": ["summary"],
    "doctor --check sto": ["store"],
    "help jo": ["job"],
    "help job wa": ["watch", "wait"],
    "help nothing ": [],
    "enqueue train --evaluate-on ": ["pictures"],
}


def test_names_are_completed(genmill, family_tree):
    genmill("model", "alias", "digits:2", "--as", "champion")
    command = ("enqueue", "generate", "digits", "--count", "1")
    genmill("schedule", "add", "nightly", "--cron", "0 3 * * *", "--", *command)
    genmill("target", "add", "shelf", "folder", "/srv/shelf")
    assert {line: sorted(complete(line)) for line in OFFERED} == {
        line: sorted(names) for line, names in OFFERED.items()
    }


def test_ids_of_jobs_and_batches_are_completed(genmill, digits):
    Path("jobs.jsonl").write_text('{"kind": "generate", "model": "digits", "count": 1}\n')
    batch = genmill("enqueue", "batch", "jobs.jsonl").out.strip()
    jobs = genmill("job", "list", "-q").out.split()
    assert complete("job show ") == [*jobs, batch]
    assert complete(f"job cancel {jobs[0]} ") == [batch]
    assert complete("job list --batch ") == [batch]
    assert complete(f"artifact list {jobs[0][:30]}") == jobs
    assert complete("job show zz") == []


def test_no_database_is_created(genmill, home, tmp_path, monkeypatch):
    monkeypatch.delenv("GENMILL_DATABASE_URL", raising=False)
    monkeypatch.setenv("GENMILL_HOME", str(tmp_path / "elsewhere"))
    assert complete("model show ") == []
    assert not (tmp_path / "elsewhere").exists()


WRONG = [
    ("GENMILL_DATABASE_URL", "postgresql://ann@127.0.0.1:1/x"),
    ("GENMILL_DATABASE_URL", "nonsense"),
    ("GENMILL_DATABASE_URL", "sqlite:////dev/null"),
    ("GENMILL_LEASE_S", "soon"),
]


def test_an_error_offers_nothing_and_says_nothing(genmill, monkeypatch, capsys, caplog):
    for name, value in WRONG:
        with monkeypatch.context() as changed:
            changed.setenv(name, value)
            assert complete("model show ") == []
    said = capsys.readouterr()
    assert (said.out, said.err, caplog.text) == ("", "", "")


def test_a_service_that_does_not_answer_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(completion, "PATIENCE_S", 0.05)
    monkeypatch.setitem(completion._FINDERS, "model", lambda _: time.sleep(1))
    began = time.monotonic()
    assert complete("model show ") == []
    assert time.monotonic() - began < 0.9


def test_every_argument_that_names_something_is_completed():
    without = {
        (words, param.name)
        for words, command in leaves(cli)
        for param in command.params
        if isinstance(param, click.Argument)
        and not isinstance(param.type, click.Path)
        and completion.noun_of(param, words.partition(" ")[0]) is None
    }
    assert without == OTHERS
