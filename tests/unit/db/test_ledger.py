"""The ledger on each database: every leaf once, whoever appends, and what each act enters."""

import json
import time
from datetime import timedelta

import pytest
from sqlalchemy import event, func, select, text

from db import audit_trail, columns, datasets, job_removal, keys, ledger, models, promotions
from db.commits import NewManifest
from db.ended_jobs import ended_jobs
from db.errors import BadRecord, Refused
from db.jobs import succeed_many
from db.keys import ALL_TENANTS, NewKey, Purpose
from db.leaves import AUDIT, MANIFEST, PROMOTION, REMOVAL, WITHDRAWAL, head_text, leaf_text
from db.merkle import Place, leaf_hash
from db.promotions import Reason
from db.session import clock
from db.tables import Ledger, LedgerLeaf, LedgerNode, Retention
from db.version_removal import remove_content
from scheduler.audit.leaf_checks import rows_are_as_told
from tests.unit.db.test_merkle import naive_root

NOW = timedelta(0)
SUMMARY = {"shape": {"media": "text"}}


def succeed(record, number: int) -> str:
    """Do a job to its end; its id."""
    job, shard = record.add()
    record.commit(record.claim(shard))
    assert record.run(succeed_many, {job: NewManifest(f"jobs/{job}/manifest.json", digest(number))})
    return job


def digest(number: int) -> str:
    return f"{number:064x}"


def extend(record, limit: int = 500) -> int:
    return record.run(ledger.extend, limit=limit, lag=-timedelta(seconds=1))


def leaves(record) -> list[LedgerLeaf]:
    def read(session):
        return session.scalars(select(LedgerLeaf).order_by(LedgerLeaf.idx)).all()

    return record.run(read)


def told(record, kind: str) -> list[dict]:
    """What the leaves of a kind tell, in the order in which they were entered."""
    mine = sorted((leaf for leaf in leaves(record) if leaf.kind == kind), key=lambda leaf: leaf.id)
    return [json.loads(leaf.text)["data"] for leaf in mine]


def test_the_manifests_of_ended_jobs_are_appended_by_an_indexed_search(each_record):
    made = [succeed(each_record, number) for number in range(5)]
    each_record.cancel(each_record.add()[0])
    assert extend(each_record, limit=2) == 2
    assert [extend(each_record, limit=2) for _ in range(4)] == [2, 1, 0, 0]
    found = leaves(each_record)
    assert [leaf.idx for leaf in found] == list(range(5))
    assert [leaf.subject for leaf in found] == made
    assert told(each_record, MANIFEST) == [{"manifest_sha256": digest(n)} for n in range(5)]
    root = each_record.run(ledger.root, 5)
    assert root == naive_root([leaf_hash(leaf.text.encode()) for leaf in found])
    assert not each_record.run(ledger.is_behind, lag=-timedelta(seconds=1))


def test_many_that_append_at_once_append_each_leaf_once(each_record):
    made = {succeed(each_record, number) for number in range(12)}
    assert sum(each_record.together(*[(extend, each_record, 3)] * 6)) == 12
    found = leaves(each_record)
    assert [leaf.idx for leaf in found] == list(range(12))
    assert {leaf.subject for leaf in found} == made
    entered = [(each_record.run, ledger.enter_manifests, list(made))] * 3
    assert each_record.together(*entered) == [None] * 3
    assert len(leaves(each_record)) == 12


def test_a_job_that_was_passed_over_is_entered_later_and_once(each_record):
    job = succeed(each_record, 1)

    def pass_over(session):
        session.add(Retention(what="ledger", finished_at=clock(session), job_id=job))

    each_record.run(pass_over)
    assert extend(each_record) == 0
    for _ in range(2):
        each_record.run(ledger.enter_manifests, [job])
    assert (extend(each_record), extend(each_record)) == (1, 0)


def test_a_job_that_has_just_ended_waits_for_those_that_ended_before(each_record):
    succeed(each_record, 1)
    assert not each_record.run(ledger.is_behind)
    assert each_record.run(ledger.extend) == 0
    assert each_record.run(ledger.is_behind, lag=-timedelta(seconds=1))


def test_nothing_is_written_while_there_is_nothing_to_append(record):
    assert not record.run(ledger.is_behind)
    assert record.run(ledger.current) is None
    assert record.run(ledger.new_head) is None


def test_looking_for_what_is_new_reads_indexes_alone(record):
    def plan(session):
        place = Retention(what="ledger", finished_at=clock(session), job_id="0" * 36)
        found = ended_jobs(place, clock(session)).limit(500)
        compiled = found.compile(session.get_bind(), compile_kwargs={"literal_binds": False})
        values = [compiled.params[name] for name in compiled.positiontup]
        rows = session.connection().exec_driver_sql(
            f"EXPLAIN QUERY PLAN {compiled}", tuple(str(value) for value in values)
        )
        return [row[3] for row in rows]

    if record.database.dialect != "sqlite":
        pytest.skip("the plan of SQLite")
    assert all("ix_jobs_finished_at_id" in step for step in record.run(plan))


def test_appending_reads_and_writes_a_logarithm_of_the_tree(record):
    for number in range(40):
        record.run(ledger.append, "audit", digest(number)[:32], {"n": number})
    extend(record)
    stored = record.run(lambda s: s.scalar(select(func.count()).select_from(LedgerNode)))
    assert stored == 20 + 10 + 5 + 2 + 1
    record.run(ledger.append, "audit", "a" * 32, {})
    extend(record)
    assert record.run(ledger.root, 40) == naive_root(
        [leaf_hash(leaf.text.encode()) for leaf in leaves(record)[:40]]
    )


def test_hashes_are_found_by_their_key(record):
    if record.database.dialect != "sqlite":
        pytest.skip("the plan of SQLite")
    steps = []

    def explain(conn, cursor, statement, parameters, *_):
        if "ledger_nodes" in statement:
            plan = conn.connection.driver_connection.execute(
                f"EXPLAIN QUERY PLAN {statement}", parameters
            )
            steps.extend(row[3] for row in plan)

    def look(session):
        event.listen(session.connection(), "before_cursor_execute", explain)
        return ledger.hashes(session, [Place(1, 0), Place(2, 0)])

    for number in range(4):
        record.run(ledger.append, "audit", digest(number)[:32], {})
    extend(record)
    assert len(record.run(look)) == 2
    assert steps
    assert not [step for step in steps if step.startswith("SCAN")]


def test_a_hash_that_is_gone_is_named(record):
    record.run(ledger.append, "audit", "a" * 32, {})
    extend(record)
    with pytest.raises(BadRecord, match="lacks the hash of its node 7 on level 3"):
        record.run(ledger.hashes, [Place(3, 7)])


def test_acts_enter_leaves_in_their_own_transaction(each_record):
    fixed = {"params": {}, "files": {}, "weights_sha256": "a" * 64, "metrics": {}}
    version = each_record.run(models.add_version, name="digits", family="gan", **fixed)
    model = each_record.run(models.get, "digits")
    reason = Reason("ann@mill", "it is \ud800 better", {"p": 1.0, "e": 1e-7, "big": 1e20})
    moved = {"expected": None, "outcome": promotions.PROMOTED, "reason": reason}
    each_record.run(promotions.move, model, "champion", version, **moved)
    [promotion] = told(each_record, PROMOTION)
    assert promotion["verdict"] == {"p": 1, "e": 1e-7, "big": 10**20}
    assert promotion["why"] == "it is ? better"
    [entry] = each_record.run(trail)
    assert (entry.who, entry.action, entry.subject) == ("ann@mill", "promoted", "digits:1")
    assert told(each_record, AUDIT)[0]["detail"]["alias"] == "champion"


def trail(session, **chosen):
    return list(session.scalars(audit_trail.select_newest(**chosen)))


def test_removals_withdrawals_and_what_is_added_again(each_record):
    job = succeed(each_record, 1)
    assert not each_record.run(
        job_removal.remove_jobs, [job], leaving=set(), who="ann", kept=False
    ).held
    data = {"kind": "text", "manifest_key": "k", "manifest_sha256": "b" * 64, "summary": SUMMARY}
    version = each_record.run(datasets.add_version, name="d", **data)
    dataset = each_record.run(datasets.resolve, "d")[0]
    each_record.run(remove_content, dataset, {version.id: 9}, who="ann", kept=False)
    each_record.run(datasets.add_version, name="d", **data)
    removed = told(each_record, REMOVAL)
    assert [(each.get("kind"), each.get("name")) for each in removed] == [
        ("job", None),
        ("dataset", "d:1"),
        (None, None),
    ]
    barred = {"digests": ["0" * 16, "1" * 16], "versions": [version.id], "who": "ann"}
    each_record.run(datasets.withdraw, dataset=dataset, reason="asked for", **barred)
    assert [each["digest"] for each in told(each_record, WITHDRAWAL)] == barred["digests"]
    acts = each_record.run(trail)
    assert [(each.action, each.subject) for each in reversed(acts)] == [
        ("removed", job),
        ("removed", "d:1"),
        ("withdrawn", "d"),
    ]


def test_an_act_that_fails_enters_nothing(record):
    def fail(session):
        audit_trail.note(session, "ann", "removed", "digits:1")
        raise Refused("it was not to be")

    with pytest.raises(Refused):
        record.run(fail)
    assert leaves(record) == []


def test_keys_are_entered_when_made_and_whenever_their_state_changes(each_record):
    first, second = (
        NewKey(f"key_{n}", Purpose.HEAD, "", "-----BEGIN\n", b"secret") for n in range(2)
    )
    each_record.run(keys.add, first)
    each_record.run(keys.rotate, second, replaced="key_0")
    each_record.run(keys.revoke, ["key_1"], "lost")
    states = [(each["rotated_at"] is None, each["reason"]) for each in told(each_record, "key")]
    assert states == [(True, None), (False, None), (True, None), (True, "lost")]
    assert b"secret" not in b"".join(leaf.text.encode() for leaf in leaves(each_record))


def test_leaves_about_a_row_keep_their_order_whatever_clocks_say(each_record, monkeypatch):
    """Each machine makes ids by its own clock; here the second one's is an hour late."""
    each_record.run(keys.add, NewKey("key_1", Purpose.HEAD, ALL_TENANTS, "public", b"w"))
    time_ns = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: time_ns() - 3600 * 10**9)
    monkeypatch.setattr("db.columns._last", 0)
    each_record.run(keys.revoke, ["key_1"], "lost")
    late = columns.new_id()
    extend(each_record)
    found = [json.loads(leaf.text)["data"]["reason"] for leaf in leaves(each_record)]
    assert found == [None, "lost"]
    assert late < leaves(each_record)[0].id
    with each_record.database.read() as session:
        assert list(rows_are_as_told(session.connection())) == []


def test_the_trail_is_found_by_time_action_and_subject(record):
    for action in ("removed", "promoted"):
        record.run(audit_trail.note, "ann", action, "digits:1", {"n": 1})
    assert len(record.run(trail, limit=1)) == 1
    [found] = record.run(trail, action="removed", subject="digits:1")
    assert found.detail == {"n": 1}
    later = found.at + timedelta(hours=1)
    assert record.run(trail, since=later) == []
    assert record.run(trail, subject="digits") == []
    record.run(audit_trail.note, "ann", "removed", job := columns.new_id())
    assert [each.subject for each in record.run(trail, subject=job[:18])] == [job]


def test_texts_are_the_same_for_ever(record):
    """Whoever changes them makes every proof invalid that was given out."""
    text_of = leaf_text("manifest", "s", {"manifest_sha256": "é\0", "n": 2.0, "at": None})
    assert text_of == (
        '{"data":{"at":null,"manifest_sha256":"\\u00e9\\ufffd","n":2},'
        '"kind":"manifest","subject":"s"}'
    )
    at = record.run(clock)
    assert head_text("id", 3, b"\0" * 32, at) == (f"genmill/id\n3\n{'A' * 43}=\n{at.isoformat()}\n")


def test_a_head_of_a_size_is_recorded_once(record):
    record.run(ledger.append, "audit", "a" * 32, {})
    extend(record)
    _, head = record.run(ledger.new_head)
    for key in ("key_0", "key_1"):
        head.key_id, head.signature = key, b"signed"
        record.run(ledger.add_head, head)
    assert record.run(ledger.newest_head).key_id == "key_0"
    assert record.run(lambda s: s.scalar(select(Ledger.size))) == 1
    assert record.run(lambda s: s.scalar(text("SELECT count(*) FROM ledger_heads"))) == 1
