"""A list with a damaged row shows the others, names that one and ends with 1, in every form."""

from typing import NamedTuple

import pytest
from sqlalchemy import text

from db import datasets
from db.errors import BadRecord
from db.keys import Purpose
from scheduler.cli import cli
from tests.commands import find, leaves
from tests.publications import add_target, publish

NO_RECORD = {"config list", "family list", "target kinds", "template list"}
SUMMARY = '{"counts": {"train": 9}, "labels": [], "size_bytes": 9}'


class Row(NamedTuple):
    """Which column is damaged, of the newest row; what the list calls such a row, and its key."""

    column: str
    noun: str
    key: str = "id"
    whole: str = "NULL"  # what the column may hold, in SQL
    damaged: str = "'[1]'"


LISTS = {
    "job list": Row("shards.report", "job"),
    "artifact list {job}": Row("artifacts.marks", "artifact"),
    "model list": Row("model_versions.metrics", "model", "name", "'{}'"),
    "model alias": Row("models.marks", "model", "model"),
    "model history digits": Row("promotions.verdict", "entry", "at"),
    "dataset list": Row("dataset_versions.summary", "dataset", "name", f"'{SUMMARY}'"),
    "schedule list": Row("schedules.command", "schedule", "name", "'[\"x\"]'", "'{}'"),
    "target list": Row("targets.settings", "target", "name", '\'{"address": "/x"}\''),
    "publications list": Row("publications.size", "publication", "item", "10", "'x'"),
    "key list": Row("keys.purpose", "key", "id", "'watermark'", "'x'"),
    "audit": Row("audit_entries.detail", "audit entry"),
    "db removed": Row("tombstones.about", "tombstone", "name", "'{}'"),
}


@pytest.fixture
def record(genmill, services, family_tree, picture_job, pictures):
    """Two rows and more in each list."""

    def do(line):
        done = genmill(*line.split())
        assert done.code == 0, done.err
        return done.out.strip()

    with services.database.write() as session:
        fixed = {"kind": "text", "manifest_key": "k", "manifest_sha256": "1" * 64}
        summary = {"counts": {"train": 9}, "labels": [], "size_bytes": 9}
        datasets.add_version(session, name="words", summary=summary, **fixed)
        for name in ("shelf", "site"):
            publish(session, add_target(session, name), job_id=picture_job, samples=[0])
    for alias in ("copy:1", "digits:2", "digits:3"):
        do(f"model alias {alias} --as champion")
    for name in ("nightly", "weekly"):
        do(f"schedule add {name} --cron @daily -- enqueue generate digits --count 1")
        do(f"key create watermark --tenant {name}")
        job = do("enqueue generate digits --count 1")
        do(f"job cancel {job}")
        do(f"job remove {job} --yes")
        do(f"enqueue train gan --dataset pictures --name {name} --max-steps 9")
    return picture_job


def set_newest(services, column, value):
    table, _, name = column.partition(".")
    newest = f"SELECT id FROM {table} ORDER BY id DESC LIMIT 1"
    with services.database.write() as session:
        session.execute(text(f"UPDATE {table} SET {name} = {value} WHERE id = ({newest})"))


def test_every_list_of_rows_is_among_these():
    listed = {name for name in leaves(cli) if any("-q" in each.opts for each in find(name).params)}
    among = {" ".join(line.split()[:2]) for line in LISTS}
    assert listed - NO_RECORD == among - {"model alias", "model history"}


def test_each_list_shows_what_can_be_read_and_names_the_rest(genmill, services, record):
    for line, row in LISTS.items():
        if row.column == "publications.size" and services.database.dialect == "postgresql":
            continue  # which lets no text into a column of numbers
        words = line.format(job=record).split()
        before = genmill(*words, "--json").json
        assert len(before) > 1, line
        set_newest(services, row.column, row.damaged)
        for form in (["--json"], []):
            done = genmill(*words, *form)
            assert (done.code, "Traceback" in done.err) == (1, False), (line, done)
            assert done.err.startswith(f"Error: {row.noun} "), done.err
            if form:
                left = done.json
                gone = [each for each in before if each not in left]
                assert len(gone) == 1, line
                assert left == [each for each in before if each not in gone]
                assert row.key == "at" or gone[0][row.key] in done.err
            else:
                assert len(done.out.splitlines()) == len(left) + 1  # and the headings
        set_newest(services, row.column, row.whole)
        assert genmill(*words).code == 0, line


WORDS = {  # that Genmill has not written; the list and the noun
    "jobs.status": ("job list", "job", "a state"),
    "promotions.outcome": ("model history digits", "entry", "an outcome"),
    "publications.state": ("publications list", "publication", "the state of a publication"),
    "schedules.cron": ("schedule list", "schedule", "a cron expression"),
    "targets.settings": ("target list", "target", "the address of a target"),
}


def test_a_row_with_a_word_that_genmill_does_not_write_is_not_shown_as_sound(
    genmill, services, record
):
    for column, (line, noun, belongs) in WORDS.items():
        rows = len(genmill(*line.split(), "--json").json)
        set_newest(services, column, "'{}'")
        done = genmill(*line.split(), "--json")
        assert (done.code, len(done.json)) == (1, rows - 1), (line, done)
        assert done.err.startswith(f"Error: {noun} "), done.err
        assert f"where {belongs} belongs" in done.err


def test_status_tells_of_the_jobs_that_can_be_read_and_ids_are_found_alone(
    genmill, services, pictures
):
    for name in ("m", "n"):
        words = ("gan", "--dataset", pictures, "--name", name, "--max-steps", "9")
        assert genmill("enqueue", "train", *words).code == 0
    with services.database.write() as session:
        session.execute(text("UPDATE jobs SET status = 'running'"))
    set_newest(services, "shards.report", "'[1]'")
    whole = genmill("job", "list", "-q")
    assert (whole.code, len(whole.out.split())) == (0, 2)
    found = genmill("status", "--json").json
    assert len(found["under_way"]) == 1
    assert "where a JSON object belongs" in found["database"]


def test_a_damaged_target_is_told_once_and_not_for_each_item(genmill, services, picture_job):
    with services.database.write() as session:
        publish(session, add_target(session, "site"), job_id=picture_job, samples=range(4))
    set_newest(services, "targets.settings", "'[1]'")
    listed = genmill("publications", "list", "--json")
    assert (listed.code, len(listed.json)) == (0, 4)
    shown = genmill("target", "list")
    assert (shown.code, shown.err.count("the record holds")) == (1, 1)
    if services.database.dialect == "sqlite":  # any other lets no bytes into a column of text
        set_newest(services, "targets.name", "x'00'")
        shown = genmill("publications", "list", "--json")
        assert (shown.code, shown.json, shown.err.count("the record holds")) == (1, [], 1)


def test_a_purpose_that_is_none_is_a_damaged_record():
    with pytest.raises(BadRecord, match="'x' where the purpose of a key belongs"):
        Purpose("x")
