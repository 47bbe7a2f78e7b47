"""Failpoints: their names, their actions, and that nothing happens where none is set."""

import ast
import errno
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from db import schema
from db.errors import Refused, Unreachable
from tests.chaos.scenarios import SCENARIOS
from worker import failpoints
from worker.failpoints import (
    HOLD,
    LOG,
    POINTS,
    Failpoint,
    Panic,
    parse,
    reach,
    wait_while_held,
)
from worker.services import Services
from worker.settings import Settings

ROOT = Path(__file__).parents[3]


@pytest.fixture
def settings(tmp_path):
    return lambda failpoint: Settings(_env_file=None, home=tmp_path, failpoint=failpoint)


def named_in_the_source() -> Iterator[str]:
    """The names that calls of `reach`, and those that watch methods, give."""
    for path in (each for room in ("worker", "scheduler") for each in (ROOT / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            if node.func.id == "reach":
                if isinstance(node.args[1], ast.Constant):
                    yield node.args[1].value
                else:
                    assert path.name == "failpoints.py", f"{path}: a name that is not a literal"
            if node.func.id == "_watch":
                yield from (word.value.value for word in node.keywords)


def test_every_point_of_the_source_is_registered_and_every_registered_one_is_in_it() -> None:
    assert {*named_in_the_source(), HOLD} == POINTS.keys()


def test_every_point_has_one_sentence() -> None:
    for sentence in POINTS.values():
        assert sentence[0].isupper()
        assert sentence.endswith((".", "`."))
        assert ". " not in sentence


def test_every_point_is_reached_by_a_scenario_of_the_chaos_tests() -> None:
    reached = {point for scenario in SCENARIOS for point in scenario.points}
    assert reached | {HOLD} == POINTS.keys()  # tests of running jobs hold them


@pytest.mark.parametrize("text", ["", None])
def test_nothing_happens_where_none_is_set(settings, text) -> None:
    reach(settings("").model_copy(update={"failpoint": text}), "claimed")


WRONG = {
    "clamed": "no failpoint 'clamed' (did you mean 'claimed'?)",
    ":sigkill": "no failpoint ''",
    "claimed, committed": "no failpoint ' committed' (did you mean 'committed'?)",
    "claimed:sigkil": "no action 'sigkil' (did you mean 'sigkill'?)",
    "claimed:stop:twice": "no action 'stop:twice'",
    "claimed:oserror": "no errno ''",
    "claimed:oserror:ENOSPACE": "no errno 'ENOSPACE' (did you mean 'ENOSPC'?)",
    "claimed:oserror:errorcode": "no errno 'errorcode'",
    "claimed:stop:0": "0 is not a number from 1 to 999999",
    "claimed:stop:2x": "2x is not a number from 1 to 999999",
    "claimed:stop:1000000": "1000000 is not a number from 1 to 999999",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_not_a_failpoint_is_refused_by_whoever_reads_the_settings(settings, text) -> None:
    with pytest.raises(Refused) as caught:
        settings(text)
    assert f"is not a failpoint: {WRONG[text]}; use NAME:ACTION:NTH; names: booting, " in str(
        caught.value
    )


@pytest.mark.parametrize(
    ("action", "kind"),
    [
        ("refused", Refused),
        ("unreachable", Unreachable),
        ("memory", MemoryError),
        ("unknown", KeyError),
        ("panic", Panic),
        ("device", getattr(sys.modules.get("torch"), "OutOfMemoryError", MemoryError)),
        ("oserror:ENOSPC", OSError),
    ],
)
def test_an_error_of_each_class_is_raised_and_noted(settings, tmp_path, action, kind) -> None:
    given = settings(f"claimed:{action}")
    reach(given, "committed")
    for _ in range(2):
        with pytest.raises(kind) as caught:
            reach(given, "claimed")
    if kind is OSError:
        assert caught.value.errno == errno.ENOSPC
    assert (tmp_path / LOG).read_text() == f"claimed {action} {os.getpid()}\n" * 2


def test_only_the_nth_time_counts_where_one_is_named(settings) -> None:
    given = settings("claimed:unreachable:3,committed:unknown")
    reach(given, "claimed")
    reach(given, "claimed")
    with pytest.raises(Unreachable):
        reach(given, "claimed")
    reach(given, "claimed")
    with pytest.raises(KeyError):
        reach(given, "committed")


def test_every_form_is_read() -> None:
    assert parse("claimed,claimed:3,claimed:note:2,claimed:oserror:EWOULDBLOCK:1,") == (
        Failpoint("claimed"),
        Failpoint("claimed", nth=3),
        Failpoint("claimed", "note", 2),
        Failpoint("claimed", "oserror:EWOULDBLOCK", 1),
    )


@pytest.mark.parametrize(("text", "action"), [("claimed", "sigkill"), ("claimed:stop", "stop")])
def test_a_signal_strikes_the_process(settings, tmp_path, text, action) -> None:
    assert [each.action for each in parse(text)] == [action]
    process = multiprocessing.get_context("fork").Process(
        target=reach, args=(settings(text), "claimed")
    )
    process.start()
    if action == "stop":
        deadline = time.monotonic() + 30
        while _state(process.pid) != "T" and time.monotonic() < deadline:
            time.sleep(0.01)
        assert _state(process.pid) == "T"
        os.kill(process.pid, signal.SIGCONT)
    process.join(timeout=30)
    assert process.exitcode == (-signal.SIGKILL if action == "sigkill" else 0)
    assert (tmp_path / LOG).read_text().startswith(f"claimed {action} ")


def test_a_hold_ends_with_its_file_or_with_an_order(settings, tmp_path) -> None:
    (tmp_path / HOLD).touch()
    wait_while_held(settings(""), until=lambda: False)
    wait_while_held(settings("claimed:unknown"), until=lambda: False)
    orders = iter([False, False, True])
    wait_while_held(settings("claimed:unknown,hold"), until=lambda: next(orders))
    assert list(orders) == []


def test_writes_and_objects_are_watched_where_a_failpoint_is_set(settings, tmp_path) -> None:
    calm = Services(settings(""))
    assert "write" not in vars(calm.database)
    assert "put" not in vars(calm.store)
    points = ("record_write", "record_written", "store_write", "store_written", "store_read")
    given = settings(",".join(f"{point}:note" for point in points))
    services = Services(given)
    schema.upgrade(given.database)
    services.store.put_bytes("a", b"the first also makes the sentinel")
    (tmp_path / LOG).unlink()
    blob = services.store.put_bytes("a", b"x")
    with services.store.open(blob.key) as file:
        assert file.read() == b"x"
    with services.database.write():
        pass
    seen = [line.split()[0] for line in (tmp_path / LOG).read_text().splitlines()]
    assert seen[-3:] == ["store_read", "record_write", "record_written"]
    assert [point for point in seen[:-3] if point != "store_read"] == [  # it is the sentinel's
        "store_write",
        "store_written",
    ]
    services.close()
    calm.close()


def test_an_error_after_a_commit_is_a_reply_that_was_lost(settings, database_url) -> None:
    from tests.shards import add_job

    given = settings("record_written:unreachable:1")
    services = Services(
        given.model_copy(
            update={
                "database_url": Settings(_env_file=None, database_url=database_url).database_url
            }
        )
    )
    with pytest.raises(Unreachable):
        add_job(services)
    job = add_job(services)
    with services.database.read() as session:
        from db import jobs

        assert len(jobs.listing(session)) == 2
        assert jobs.get(session, job.id)
    services.close()


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_the_registry_is_what_a_wrong_name_is_told() -> None:
    with pytest.raises(Refused) as caught:
        failpoints.parse("nowhere")
    assert all(point in str(caught.value) for point in POINTS)
