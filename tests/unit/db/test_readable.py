"""Lists of a record with damaged rows have the other rows, in order, and name the damaged ones."""

import pytest
from sqlalchemy import text

from db import jobs, schedules
from db.errors import BadRecord, Unreachable
from db.readable import Unreadable, read_each, refuse_unreadable
from db.session import clock
from db.tables import Schedule

COMMAND = ["enqueue", "generate", "digits"]


@pytest.fixture
def named(each_record):
    """Nine schedules, a to i."""

    def add(session):
        rules = {"cron": "0 3 * * *", "timezone": "UTC", "missed": "skip", "overlap": "skip"}
        for name in "abcdefghi":
            how = rules | {"command": COMMAND, "next_due": clock(session)}
            schedules.add(session, name=name, **how)

    each_record.run(add)
    return each_record


def damage(record, name):
    with record.database.write() as session:
        session.execute(text(f"UPDATE schedules SET command = '{{}}' WHERE name = '{name}'"))


def read(record, make=lambda rows: [row.name for (row,) in rows]):
    with record.database.read() as session:
        return read_each(session, schedules.select_all(), make, called=Schedule.name)


def test_a_sound_list_is_read_at_once(named):
    calls = []
    found, bad = read(named, lambda rows: calls.append(len(rows)) or [row.name for (row,) in rows])
    assert (found, bad, calls) == ([*"abcdefghi"], [], [9])


@pytest.mark.parametrize("damaged", ["a", "i", "e", "bc", "abcdefghi"])
def test_every_row_but_the_damaged_ones_is_read_in_order(named, damaged):
    for name in damaged:
        damage(named, name)
    found, bad = read(named)
    assert found == [name for name in "abcdefghi" if name not in damaged]
    assert [each.name for each in bad] == [*damaged]
    assert "the record holds" in str(bad[0].error)


def test_what_belongs_to_a_row_makes_it_unreadable_too(named):
    def make(rows):
        if any(row.name == "d" for (row,) in rows):
            raise BadRecord("its runs are damaged")
        return [row.name for (row,) in rows]

    found, [(name, error)] = read(named, make)
    assert (found, name, str(error)) == ([*"abcefghi"], "d", "its runs are damaged")


def test_an_outage_is_no_fault_of_a_row(named):
    def make(rows):
        raise Unreachable("the database is away")

    with pytest.raises(Unreachable):
        read(named, make)


def test_a_row_is_named_by_its_id_where_it_has_no_name(each_record):
    one, two = (each_record.add()[0] for _ in range(2))
    with each_record.database.write() as session:
        session.execute(text("UPDATE jobs SET spec = '[1]' WHERE model = 'digits' AND id = :id"),
                        {"id": bytes.fromhex(one.replace("-", ""))})  # fmt: skip
    with each_record.database.read() as session:
        statement = jobs.select_jobs([one, two], with_spec=True)
        found, bad = read_each(session, statement, lambda rows: [job.id for (job,) in rows])
    assert (found, [each.name for each in bad]) == ([two], [one])


def test_the_error_tells_each_reason_once_with_the_rows_that_it_holds_for():
    error = BadRecord("the record holds 3 where a time belongs", remedy="restore a backup")
    other = BadRecord("its runs are damaged")
    refuse_unreadable("job", [])
    with pytest.raises(BadRecord, match=r"^job a: the record holds 3 where a time .*; restore"):
        refuse_unreadable("job", [Unreadable("a", error)])
    rows = [Unreadable(*each) for each in (("a", error), ("b", other), ("c", error))]
    told = "^3 rows cannot be read:\n  job a, c: the record .*\n  job b: its runs are .*; restore"
    with pytest.raises(BadRecord, match=told):
        refuse_unreadable("job", rows)
    many = [Unreadable(f"{number:02}", error) for number in range(1022)]
    told = r"^1,022 rows .*\n  job 00, 01, .*, 19 and 1,002 more: the"
    with pytest.raises(BadRecord, match=told):
        refuse_unreadable("job", many)
