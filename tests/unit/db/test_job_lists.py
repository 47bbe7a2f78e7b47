"""Lists and counts of jobs: what they hold, and that no query of theirs reads a whole table."""

import itertools
import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import delete, event, text

from db import batches, job_lists, jobs
from db.columns import first_id, new_id
from db.errors import NotFound, Refused
from db.session import Database, clock
from db.tables import Base, Job, JobCount, Shard, Transition
from tests.shards import succeed
from tests.unit.db.conftest import Record

WHOLE_TABLE = re.compile(rf"SCAN ({'|'.join(Base.metadata.tables)})\b(?! USING)")
FILTERS = ("status", "kind", "model", "batch", "schedule")


@pytest.fixture
def many(each_record: Record) -> Record:
    """Twelve jobs: of two kinds, models, batches and states, one of them of a schedule."""
    ids = [each_record.run(batches.add, 4).id for _ in range(2)]
    for kind, model, batch in itertools.product(("train", "generate"), "ab", [None, *ids]):
        job_id, *_ = each_record.add(kind=kind, model=model, batch_id=batch)
        if batch == ids[0]:
            each_record.cancel(job_id)
    for batch in ids:
        each_record.run(batches.complete, batch)
    each_record.batches = ids
    return each_record


def shown(record: Record, **filters: object) -> list[str]:
    return [job.id for job in record.run(jobs.listing, **filters)]


def test_every_combination_of_filters_finds_what_matches_newest_first(many):
    everything = many.run(jobs.listing, limit=100)
    assert len(everything) == 12
    values = {
        "status": [None, "queued", "cancelled", "failed"],
        "kind": [None, "train", "generate"],
        "model": [None, "a", "z"],
        "batch": [None, many.batches[0]],
    }
    for choice in itertools.product(*values.values()):
        filters = dict(zip(values, choice, strict=True))
        wanted = {**filters, "batch_id": filters["batch"]}
        del wanted["batch"]
        matching = [
            job.id
            for job in everything
            if all(value in (None, getattr(job, name)) for name, value in wanted.items())
        ]
        assert shown(many, **filters) == matching, filters


def test_pages_follow_one_another_by_the_last_id(many):
    for filters in ({}, {"model": "a"}, {"status": "queued"}, {"batch": many.batches[1]}):
        pages, before = [], None
        while page := shown(many, limit=2, before=before, **filters):
            pages += page
            before = page[-1]
        assert pages == shown(many, limit=100, **filters)


def test_since_goes_by_the_databases_clock(many):
    now = many.run(clock)
    assert len(shown(many, since=now - timedelta(hours=1))) == 12
    assert shown(many, since=now + timedelta(seconds=1), model="a") == []
    assert len(shown(many, since=datetime(1901, 1, 1, tzinfo=UTC))) == 12


def test_the_first_id_of_a_time_sorts_before_the_ids_made_then():
    at = datetime.now(UTC)
    assert first_id(at - timedelta(milliseconds=2)) < new_id()
    assert first_id(at + timedelta(hours=2)) > new_id()


def test_a_page_has_a_bounded_size(many, monkeypatch):
    monkeypatch.setattr(job_lists, "MAX_LIMIT", 5)
    assert len(shown(many, limit=1000)) == 5


def test_an_unknown_state_is_refused(record):
    with pytest.raises(Refused, match="no status 'broken'"):
        record.run(jobs.listing, status="broken")


def test_counts_follow_every_way_in_which_a_job_changes(each_record):
    first, shard_id = each_record.add()
    second, *_ = each_record.add()
    claim = each_record.claim(shard_id)
    assert {"queued": 1, "running": 1}.items() <= each_record.run(jobs.counts).items()
    each_record.commit(claim)
    each_record.run(succeed, first, "key", "a" * 64)
    each_record.cancel(second)
    expected = dict.fromkeys(("waiting", "queued", "running", "finalizing"), 0) | {
        "succeeded": 1,
        "failed": 0,
        "cancelled": 1,
    }
    assert each_record.run(jobs.counts) == expected
    each_record.run(delete_job, second)
    assert each_record.run(jobs.counts) == expected | {"cancelled": 0}


def delete_job(session, job_id):
    for column in (Transition.job_id, Shard.job_id, Job.id):
        session.execute(delete(column.class_).where(column == job_id))


def test_a_rolled_back_change_is_not_counted(each_database):
    with each_database.read() as session:
        jobs.add(session, spec={}, spec_hash="a" * 64, kind="train", model=None, ranges=[(0, 1)])
    with each_database.read() as session:
        assert sum(jobs.counts(session).values()) == 0


def test_folding_keeps_the_counts_and_few_rows(each_record):
    for _ in range(5):
        each_record.cancel(each_record.add()[0])
    before = each_record.run(jobs.counts)
    each_record.run(job_lists.fold_counts)
    assert each_record.run(job_lists.fold_counts) == 0
    assert each_record.run(jobs.counts) == before
    rows = each_record.run(lambda session: session.query(JobCount).count())
    assert rows <= 2


def test_changes_that_are_counted_at_the_same_time_do_not_wait_for_each_other(
    postgresql_database_url,
):
    database = Database(postgresql_database_url)
    record = Record(database)
    first, second = record.add()[0], record.add()[0]
    with database.write() as session:
        jobs.cancel(session, first)
        session.flush()
        record.cancel(second)  # in another transaction, while the first is open
    assert record.run(jobs.counts)["cancelled"] == 2
    database.dispose()


@pytest.mark.parametrize(
    "names",
    [(), *itertools.chain(*(itertools.combinations(FILTERS, size) for size in (1, 2, 3)))],
    ids=lambda names: "+".join(names) or "none",
)
def test_no_list_reads_a_whole_table_or_sorts(each_record, names):
    batch = each_record.run(batches.add, 1).id
    each_record.add(batch_id=batch)
    each_record.run(batches.complete, batch)
    values = {"status": "queued", "kind": "generate", "model": "digits", "batch": batch}
    filters = {name: values.get(name, "no-such-schedule") for name in names}
    since, before = each_record.run(clock) - timedelta(hours=1), new_id()
    for paging in ({}, {"before": before}, {"since": since}):
        for plan in plans_of(each_record.database, jobs.listing, **filters, **paging):
            assert_by_index(plan)


@pytest.mark.parametrize(
    ("query", "values"),
    [
        (jobs.get, ("0199c0de",)),
        (jobs.transitions, ("0199c0de",)),
        (jobs.log_lines, ("0199c0de",)),
        (jobs.collectable, (3600, 20)),
        (jobs.last_points, ("0199c0de",)),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_job_show_logs_and_the_rounds_read_is_found_by_index(each_record, query, values):
    def run(session):
        with suppress(NotFound):  # the plan is what counts
            query(session, *values)

    for plan in plans_of(each_record.database, run):
        assert_by_index(plan)


def plans_of(database: Database, query, **options) -> list[str]:
    """The plans of the statements that a query runs, as the database would run them on a large
    table."""
    statements: list[tuple[str, object]] = []

    def note(_, __, statement, parameters, *___):
        if "FROM jobs" in statement or "job_id" in statement:
            statements.append((statement, parameters))

    with database.read() as session:
        connection = session.connection()
        if database.dialect == "postgresql":  # it prefers to scan and sort a table of a few rows
            connection.execute(text("SET LOCAL enable_seqscan = off"))
            connection.execute(text("SET LOCAL enable_sort = off"))
            connection.execute(text("SET LOCAL enable_bitmapscan = off"))
        event.listen(connection, "before_cursor_execute", note)
        query(session, **options)
        event.remove(connection, "before_cursor_execute", note)
        explain = {"sqlite": "EXPLAIN QUERY PLAN", "postgresql": "EXPLAIN"}[database.dialect]
        return [
            f"{statement}\n" + "\n".join(str(tuple(row)) for row in explained)
            for statement, parameters in statements
            for explained in [connection.exec_driver_sql(f"{explain} {statement}", parameters)]
        ]


def assert_by_index(plan: str) -> None:
    """No table is read as a whole, and the database sorts nothing."""
    lines = plan.partition("\n(")[2].splitlines()
    assert lines, plan
    for line in lines:
        assert "Seq Scan" not in line, plan
        assert "TEMP B-TREE FOR ORDER BY" not in line, plan
        assert "Sort" not in line, plan
        assert not WHOLE_TABLE.search(line), plan
