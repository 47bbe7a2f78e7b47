"""`--json` and `--json FIELDS`, and the stated fields of every document."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from db import jobs
from scheduler.cli import cli
from scheduler.output import schema
from tests.commands import find, leaves
from tests.evaluations import add_dataset, add_evaluation, add_version, images

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
SIMPLE = {
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: type(value) is int,
    "number": lambda value: type(value) in {int, float},
    "boolean": lambda value: isinstance(value, bool),
    "time": lambda value: isinstance(value, str) and TIME.fullmatch(value),
    "object": lambda value: isinstance(value, dict),
    "any": lambda value: True,
}


@pytest.fixture
def queued(genmill, digits) -> str:
    return genmill("enqueue", "generate", digits, "--count", "4").out.strip()


def test_json_takes_fields_wherever_it_stands(genmill, queued):
    for line in (
        "job list --json id,status",
        "job list --json=id,status",
        "job list --json id,status --status queued",
        "job list --status queued --json id,status",
    ):
        assert genmill(*line.split()).json == [{"id": queued, "status": "queued"}]


def test_json_alone_prints_all_and_takes_no_argument_for_fields(genmill, queued):
    for words in (("--json", queued), (queued, "--json"), (queued, "--json=")):
        assert genmill("job", "show", *words).json["spec"]["count"] == 4


def test_one_field_of_one_job(genmill, queued):
    for line in (
        f"{queued} --json status",
        f"--json status {queued}",
        f"--json=status {queued}",
        f"{queued} --json=status",
    ):
        shown = genmill("job", "show", *line.split())
        assert shown.json == {"status": "queued"}, shown.err


def test_an_argument_that_is_called_as_a_field_is_an_argument(genmill, services):
    add_dataset(services, "name")
    for words in (("--json", "name"), ("--json", "name", "--sheet", "a.png")):
        shown = genmill("dataset", "show", *words)
        assert "--json" not in shown.err
        assert "Missing" not in shown.err
    assert genmill("dataset", "show", "--json", "name").json["name"] == "name"


def test_of_several_arguments_only_words_with_commas_are_fields(genmill, queued, picture_job):
    done = genmill("job", "watch", "--json", picture_job, picture_job)
    assert done.json["id"] == picture_job
    done = genmill("job", "watch", "--json", "id,status", picture_job)
    assert done.json == {"id": picture_job, "status": "succeeded"}


def test_a_schedule_s_command_keeps_its_words(genmill, digits):
    command = ("enqueue", "generate", "--json", "digits", "--count", "2")
    added = genmill("schedule", "add", "--json", "n", "--cron", "0 3 * * *", "--", *command)
    assert added.json["command"] == list(command)
    chosen = ("schedule", "add", "m", "--json=name,cron", "--cron", "0 3 * * *", "--", *command)
    assert genmill(*chosen).json == {"name": "m", "cron": "0 3 * * *"}


def test_fields_of_what_was_enqueued(genmill, digits):
    words = ("enqueue", "generate", "digits", "--count", "2", "--json", "id,kind")
    assert set(genmill(*words).json) == {"id", "kind"}


def test_an_unknown_field_is_refused_with_the_fields(genmill):
    for words in (("--json", "id,statsu"), ("--json", "statsu"), ("--json=statsu",)):
        wrong = genmill("job", "list", *words)
        assert (wrong.code, wrong.out, wrong.err.count("\n")) == (2, "", 1)
        assert "no field 'statsu' (did you mean 'status'?)" in wrong.err
        assert all(name in wrong.err for name in ("id", "kind", "finished_at", "retry_of"))


def test_an_unknown_field_is_refused_before_anything_is_done(genmill, queued):
    assert genmill("job", "cancel", queued, "--json=nothing").code == 2
    assert genmill("job", "show", queued, "--json").json["status"] == "queued"


def test_every_command_that_prints_json_is_stated_and_no_other():
    printing = {
        command
        for command in leaves(cli)
        if any("--json" in param.opts for param in find(command).params)
    }
    assert printing == schema.outputs().keys()
    named = {each.document for several in schema.outputs().values() for each in several}
    assert named <= set(schema.documents())


def test_every_type_is_one_that_the_page_explains():
    for name in schema.documents():
        for field, each in schema.document(name).items():
            kind = each.type.removesuffix(" or null").removeprefix("list of ")
            known = SIMPLE.keys() | {f"{simple}s" for simple in SIMPLE} | set(schema.documents())
            assert kind in known, f"{name}.{field}: {each.type}"
            assert each.meaning


def test_what_commands_print_is_as_stated(genmill, services, family_tree, picture_job):
    with services.database.write() as session:
        jobs.log(session, picture_job, "claimed")
    assert list(_told(genmill, _commands(genmill, picture_job))) == []


@pytest.mark.slow
def test_what_longer_commands_print_is_as_stated(genmill, picture_job):
    assert list(_told(genmill, _longer_commands(genmill))) == []


@pytest.mark.slow
def test_what_comparisons_and_backups_print_is_as_stated(genmill, services, picture_job):
    for seed in (1, 2, 3):
        number = add_version(services, "pets")
        if seed == 1:
            add_dataset(services)
        add_evaluation(services, f"pets:{number}", images(seed))
    commands = [
        ("model", "compare", "pets:1", "pets:2"),
        ("model", "promote", "pets:1"),
        ("model", "show", "pets"),
        ("policy", "noise", "pets:1", "pets:2", "pets:3"),
        ("backup", "copied"),
    ]
    assert list(_told(genmill, commands)) == []


def _commands(genmill, job: str) -> Iterator[tuple[str, ...]]:
    """Commands, and what some need before."""
    enqueue = ("enqueue", "generate", "digits", "--count", "2")
    yield from (
        ("status",),
        ("doctor", "--check", "settings", "--check", "clock"),
        ("config", "list"),
        ("config", "check"),
        (*enqueue, "--dry-run"),
        enqueue,
        ("job", "list"),
        *(("job", verb, job) for verb in ("show", "watch", "wait", "logs")),
        *(("artifact", verb, job) for verb in ("list", "download", "verify")),
        ("dataset", "list"),
        ("dataset", "show", "pictures", "--used-by"),
        ("model", "list"),
        ("model", "show", "digits:2", "--lineage"),
        ("model", "alias", "digits:2", "--as", "champion"),
        ("model", "alias"),
        ("model", "alias", "digits:1", "--as", "champion"),
        ("model", "rollback", "digits"),
        ("model", "history", "digits"),
        ("model", "export", "digits:1", "exported"),
        ("policy", "show"),
        ("schedule", "add", "nightly", "--cron", "0 3 * * *", "--", *enqueue),
        ("schedule", "list"),
        ("schedule", "trigger", "nightly"),
        ("schedule", "show", "nightly"),
        ("schedule", "pause", "nightly"),
        ("schedule", "resume", "nightly"),
        ("schedule", "remove", "nightly"),
        ("template", "list"),
        ("template", "show", "summary"),
        ("family", "list"),
        ("family", "show", "gpt"),
        ("db", "check"),
        ("db", "prune", "--dry-run"),
    )
    (artifact, *_) = genmill("artifact", "list", job, "-q").out.split()
    yield ("artifact", "url", artifact)
    yield ("artifact", "show", artifact)
    (sample,) = Path().glob("genmill-*/000000000.png")
    yield ("artifact", "show", str(sample))
    yield ("provenance", "verify", str(sample))
    queued = genmill(*enqueue).out.strip()
    yield ("job", "cancel", queued)
    yield ("job", "retry", queued)


def _longer_commands(genmill) -> Iterator[tuple[str, ...]]:
    Path("book.txt").write_text("".join(f"line {n} of a text\n" for n in range(200)))
    Path("more.txt").write_text("".join(f"another line {n}\n" for n in range(100)))
    Path("jobs.jsonl").write_text('{"kind": "generate", "model": "digits", "count": 1}\n')
    yield from (
        ("doctor", "--audit"),
        ("enqueue", "batch", "jobs.jsonl", "--dry-run"),
        ("enqueue", "batch", "jobs.jsonl"),
        ("dataset", "add", "book", "book.txt"),
        ("dataset", "update", "book", "more.txt"),
        ("dataset", "show", "book"),
        ("dataset", "diff", "book:1", "book:2"),
    )
    added = genmill("dataset", "diff", "book:1", "book:2", "--json").json["added"]
    yield ("dataset", "withdraw", "book", added[0]["digest"], "--dry-run")
    yield ("dataset", "remove", "book:1")


def _told(genmill, commands) -> Iterator[str]:
    """How what each command prints differs from what is stated."""
    for words in commands:
        place = words.index("--") if "--" in words else len(words)
        done = genmill(*words[:place], "--json", *words[place:])
        assert done.out, f"{words}: {done.err}"
        named = " ".join(words[: 1 if words[0] in {"status", "doctor", "backup"} else 2])
        found = [list(_faults(done, each.form, each.document)) for each in schema.outputs()[named]]
        if not any(faults == [] for faults in found):
            yield from (f"{' '.join(words)}: {fault}" for fault in min(found, key=len))


def _faults(done, form: str, document: str) -> Iterator[str]:
    if form == "lines":
        for line in done.out.splitlines():
            yield from _differences(type(done)(0, line, "").json, document, document)
        return
    kind = f"list of {document}" if form == "list" else document
    yield from _differences(done.json, kind, document)


def _differences(value: Any, kind: str, where: str) -> Iterator[str]:
    if kind.endswith(" or null"):
        if value is not None:
            yield from _differences(value, kind.removesuffix(" or null"), where)
    elif kind.startswith("list of "):
        inner = kind.removeprefix("list of ")
        inner = inner.removesuffix("s") if inner.removesuffix("s") in SIMPLE else inner
        for each in value if isinstance(value, list) else [value]:
            yield from _differences(each, inner, where)
        if not isinstance(value, list):
            yield f"{where} is no list"
    elif kind in SIMPLE:
        if not SIMPLE[kind](value):
            yield f"{where} is {value!r}, not {kind}"
    else:
        yield from _differences_of_fields(value, schema.document(kind), where)


def _differences_of_fields(
    value: Any, fields: dict[str, schema.Field], where: str
) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{where} is no object"
        return
    needed = {name for name, field in fields.items() if not field.optional}
    yield from (f"{where} lacks {name}" for name in needed - value.keys())
    yield from (f"{where}.{name} is not stated" for name in value.keys() - fields.keys())
    for name in value.keys() & fields.keys():
        yield from _differences(value[name], fields[name].type, f"{where}.{name}")


def test_a_negative_number_is_an_argument(genmill, queued):
    for words in (("--json", "id,changed", queued, "-5"), (queued, "--json", "id,changed", "-5")):
        assert genmill("job", "priority", *words).json == [{"id": queued, "changed": True}]
