"""Publications: who records what became of an item, and what the record knows after a crash."""

import pytest
from sqlalchemy import func, select

from db import jobs, publications, published, shards, targets
from db.errors import Cancelled, Refused
from db.publications import Chosen, NewItem, Outcome
from db.tables import LedgerLeaf

ITEMS = [NewItem(f"j/{n}.png", f"{n:064x}", 9, "image/png", sample=n) for n in range(2)]


@pytest.fixture
def target(database):
    with database.write() as session:
        return add(session)


def add(session, name="shelf"):
    fixed = {"kind": "folder", "settings": {"address": "/x"}, "secrets": {}, "who": "ann@here"}
    return targets.add(session, name=name, **fixed)


def claimed(database):
    """A claim of the only shard of a new job."""
    with database.write() as session:
        spec = {"target": "shelf", "job": "j"}
        job = jobs.add(
            session, spec=spec, spec_hash="0" * 64, kind="publish", model=None, ranges=[(0, 2)]
        )
        [shard] = jobs.shards_of(session, job.id)
        return shards.claim(session, shard.id, owner="w", lease_s=60)


def begin(database, claim, target):
    items = [each._replace(job_id=claim.job_id) for each in ITEMS]
    with database.write() as session:
        return publications.begin(session, claim, target, items)


def record(database, claim, target, *outcomes):
    with database.write() as session:
        return publications.record(session, claim, target, outcomes)


def states(database):
    with database.read() as session:
        return [row.state for row, _ in session.execute(publications.select_chosen(Chosen()))]


def test_only_the_attempt_that_began_an_item_last_records_it(database, target):
    first, second = claimed(database), claimed(database)
    assert [each.was for each in begin(database, first, target)] == [None, None]
    again = begin(database, second, target)
    assert [each.was for each in again] == ["begun", "begun"]
    done = [Outcome(each.item, "there", True) for each in ITEMS]
    assert record(database, first, target, *done) == []
    assert states(database) == ["begun", "begun"]
    assert record(database, second, target, *done) == done
    assert begin(database, second, target) == []
    assert [each.was for each in begin(database, first, target)] == ["published", "published"]
    assert states(database) == ["published", "published"]


def test_an_item_has_one_event_until_it_is_taken_down(database, target):
    claim = claimed(database)
    before = begin(database, claim, target)
    assert [each.event for each in begin(database, claim, target)] == [e.event for e in before]
    record(database, claim, target, *[Outcome(each.item, "there") for each in ITEMS])
    with database.write() as session:
        found = publications.of_part(
            session, target.id, job_id=claim.job_id, version_id=None, part=range(2)
        )
        assert publications.take_down(session, claim, found) == 2
        assert publications.take_down(session, claim, found) == 0
    after = begin(database, claim, target)
    assert {each.event for each in after}.isdisjoint(each.event for each in before)
    assert [each.was for each in after] == [None, None]


def test_an_item_that_is_tried_again_unchanged_is_not_told_again(database, target):
    def leaves():
        with database.read() as session:
            return session.scalar(select(func.count()).select_from(LedgerLeaf))

    claim = claimed(database)
    begin(database, claim, target)
    before = leaves()
    begin(database, claim, target)
    assert leaves() == before
    record(database, claim, target, Outcome(ITEMS[0].item, refused="no"))
    begin(database, claim, target)
    assert leaves() == before + 2  # refused, and begun again


def test_other_content_has_another_event(database, target):
    claim = claimed(database)
    [before, _] = begin(database, claim, target)
    record(database, claim, target, Outcome(before.item, "there"))
    other = ITEMS[0]._replace(job_id=claim.job_id, sha256="f" * 64)
    with database.write() as session:
        [after] = publications.begin(session, claim, target, [other])
    assert (after.item, after.was) == (before.item, "begun")
    assert after.event != before.event


def test_what_a_cancelled_job_has_put_is_still_recorded_and_nothing_new_is_begun(database, target):
    claim = claimed(database)
    begin(database, claim, target)
    with database.write() as session:
        jobs.cancel(session, claim.job_id)
    assert len(record(database, claim, target, Outcome(ITEMS[0].item, "there", True))) == 1
    with pytest.raises(Cancelled):
        begin(database, claim, target)
    assert states(database) == ["published", "begun"]


def test_a_name_is_used_again_once_its_target_was_removed(database, target):
    with database.write() as session:
        with pytest.raises(Refused, match="already"):
            add(session)
        targets.remove(session, targets.get(session, "shelf"))
        assert targets.listing(session) == []
        assert add(session).id == target.id


def test_what_was_put_again_is_not_recorded_as_taken_down(database, target):
    first, second = claimed(database), claimed(database)
    begin(database, first, target)
    with database.read() as session:
        read = [row for row, _ in session.execute(publications.select_chosen(Chosen()))]
    items = [each._replace(job_id=first.job_id) for each in ITEMS[:1]]
    with database.write() as session:
        publications.begin(session, second, target, items)
    with database.write() as session:
        assert publications.take_down(session, first, read) == 1
    assert states(database) == ["begun", "taken down"]


def test_what_was_put_after_it_was_taken_down_is_begun_again(database, target):
    late, other = claimed(database), claimed(database)
    begin(database, late, target)
    with database.write() as session:
        rows = [row for row, _ in session.execute(publications.select_chosen(Chosen()))]
        publications.take_down(session, other, rows[:1])
    assert record(database, late, target, Outcome(ITEMS[0].item, "there", True)) == []
    with database.write() as session:
        again = publications.reopen(session, late, target, [each.item for each in ITEMS])
        assert [row.item for row in again] == [ITEMS[0].item]
    assert states(database) == ["begun", "begun"]


def repair(database, claim, target, *items: str):
    reasons = dict.fromkeys(items, publications.MISSING)
    with database.write() as session:
        return publications.begin_repair(session, claim, target, reasons)


def rows(database):
    with database.read() as session:
        return [row for row, _ in session.execute(publications.select_chosen(Chosen()))]


def test_a_repair_keeps_the_time_at_which_the_item_expires(database, target):
    first, second, third = claimed(database), claimed(database), claimed(database)
    begin(database, first, target)
    done = [Outcome(each.item, "there", True) for each in ITEMS]
    with database.write() as session:
        publications.record(session, first, target, done, expires_after_s=60)
    [before, _] = [row.expires_at for row in rows(database)]
    for claim, expires_after_s in ((second, None), (third, 3600)):
        assert repair(database, claim, target, ITEMS[0].item) == {ITEMS[0].item}
        assert states(database) == ["begun", "published"]
        [begun] = begin(database, claim, target)[:1]  # an attempt after one that was broken off
        assert begun.was == "begun"
        with database.write() as session:
            publications.record(session, claim, target, done[:1], expires_after_s=expires_after_s)
        [row, _] = rows(database)
        assert (row.state, row.reason) == ("published", publications.MISSING)
        assert (row.expires_at == before) is (expires_after_s is None)


def test_a_repair_makes_nothing_expire_that_did_not(database, target):
    first, second = claimed(database), claimed(database)
    begin(database, first, target)
    record(database, first, target, *[Outcome(each.item, "there", True) for each in ITEMS])
    with database.write() as session:
        targets.get(session, "shelf").expires_after_s = 60  # by then, it has a default
    repair(database, second, target, ITEMS[0].item)
    with database.write() as session:
        row = targets.get(session, "shelf")
        publications.record(session, second, row, [Outcome(ITEMS[0].item, "there", True)])
    assert [row.expires_at for row in rows(database)] == [None, None]


def test_what_could_not_be_repaired_is_published_still_and_says_why(database, target):
    first, second, third = claimed(database), claimed(database), claimed(database)
    begin(database, first, target)
    done = [Outcome(each.item, "there", True) for each in ITEMS]
    record(database, first, target, *done)
    repair(database, second, target, ITEMS[0].item)
    [begun, _] = begin(database, third, target)
    assert (begun.was, begun.repairs) == ("begun", True)
    record(database, third, target, done[0]._replace(unrepaired="it was not repaired: full"))
    assert [(row.state, row.reason) for row in rows(database)] == [
        ("published", "it was not repaired: full"),
        ("published", None),
    ]


def test_what_was_taken_down_meanwhile_is_not_put_back(database, target):
    claim, other = claimed(database), claimed(database)
    begin(database, claim, target)
    record(database, claim, target, *[Outcome(each.item, "there") for each in ITEMS])
    with database.write() as session:
        publications.take_down(session, other, rows(database)[:1])
    assert repair(database, other, target, *(each.item for each in ITEMS)) == {ITEMS[1].item}
    assert states(database) == ["taken down", "begun"]


def test_items_are_counted_by_what_a_job_did_about_them(database, target):
    first, second = claimed(database), claimed(database)
    begin(database, first, target)
    record(database, first, target, *[Outcome(each.item, "there") for each in ITEMS])
    repair(database, second, target, ITEMS[0].item)
    record(database, second, target, Outcome(ITEMS[0].item, "there"))

    def counted(claim):
        with database.read() as session:
            return published.counts(session, target.id, job_id=first.job_id, by_job_id=claim.job_id)

    assert counted(second) == {"published before": 1, "put back": 1}
    assert counted(first) == {"published": 1, "published before": 1}
    with database.write() as session:
        [shard] = jobs.shards_of(session, second.job_id)
        shard.report = {"done": 2, "unchanged": 1}
    assert counted(second) == {"put back": 1, "unchanged": 1}
