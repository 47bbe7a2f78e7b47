"""The history checker finds what clients must not be told."""

import itertools

import pytest

from tests.history import History, check


@pytest.fixture
def history():
    return History(itertools.count().__next__)


def tell(history, what, reply, client="ann", **about):
    with history.call(client, what, **about) as call:
        call.reply = reply


def found(history, states, keys=None):
    return list(check(history, states, keys or {}))


def test_a_life_as_it_should_be_has_no_contradiction(history):
    tell(history, "enqueue", "a", key="k")
    tell(history, "show", "queued", job="a")
    tell(history, "show", "running", job="a", client="bob")
    tell(history, "show", "finalizing", job="a")
    tell(history, "show", "running", job="a")  # an order that needs more samples
    tell(history, "cancel", True, job="a")
    tell(history, "show", "cancelled", job="a", client="bob")
    assert found(history, {"a": "cancelled"}, {"k": "a"}) == []


def test_a_printed_id_must_end(history):
    tell(history, "enqueue", "a")
    tell(history, "retry", "b", job="a")
    assert found(history, {"a": "running"}) == [
        "job a was printed, and is running",
        "job b was printed, and is not on record",
    ]


def test_a_refusal_must_have_stored_nothing(history):
    with history.call("ann", "enqueue", key="k") as call:
        call.refuse()
    assert found(history, {"a": "succeeded"}, {"k": "a"}) == [
        "the request of key k was refused, and job a is stored"
    ]


def test_a_key_means_one_job(history):
    tell(history, "enqueue", "a", key="k")
    tell(history, "enqueue", "b", key="k")
    ended = {"a": "succeeded", "b": "succeeded"}
    assert found(history, ended) == ["key k gave job a, then b"]


def test_no_client_is_told_an_earlier_state_than_another_was(history):
    tell(history, "show", "running", job="a")
    tell(history, "show", "queued", job="a", client="bob")
    assert found(history, {"a": "succeeded"}) == [
        "job a was running, and bob was told later: queued"
    ]


def test_a_final_state_stays(history):
    tell(history, "show", "failed", job="a")
    tell(history, "show", "succeeded", job="a")
    assert len(found(history, {"a": "succeeded"})) == 2


def test_a_job_that_was_cancelled_does_not_succeed(history):
    tell(history, "cancel", True, job="a")
    assert found(history, {"a": "succeeded"}) == [
        "job a was told to be cancelled, and is succeeded"
    ]


def test_a_job_that_had_ended_is_not_running(history):
    tell(history, "cancel", False, job="a")
    tell(history, "show", "running", job="a")
    tell(history, "show", "failed", job="a")
    assert found(history, {"a": "failed"}) == ["job a was ended, and ann was told later: running"]


def test_calls_at_the_same_time_may_see_either_state(history):
    with history.call("ann", "show", job="a") as first:
        tell(history, "show", "running", job="a", client="bob")
        first.reply = "queued"
    assert found(history, {"a": "succeeded"}) == []


def test_a_lost_answer_tells_nothing(history):
    with pytest.raises(ConnectionError), history.call("ann", "cancel", job="a"):
        raise ConnectionError
    tell(history, "enqueue", None, key="k")
    assert found(history, {"a": "succeeded"}, {"k": "a"}) == []
