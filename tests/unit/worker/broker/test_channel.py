"""Of a message, a worker uses the shard's id and nothing else, whatever the message is like."""

import base64
import gzip
import json
import pickle
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzzing import fuzz, mutated, within_limits
from worker.broker.app import QUEUE, TASK
from worker.broker.channel import MAX_BYTES, doorbell, shard_id_in

SHARD = "01a203d4-cc8f-7501-9719-6017283c9be0"
PLAIN = json.dumps(doorbell(SHARD)).encode()

# what Celery or kombu would act on
HEADERS = {
    "timelimit": [0.1, 0.1],
    "eta": "2030-01-01T00:00:00",
    "expires": "2001-01-01T00:00:00",
    "retries": 10**9,
    "group": "g",
    "shadow": "another name",
    "compression": "bzip2",
    "task": "os.system",
    "stamps": {"a": 1},
    "replaced_task_nesting": 10**6,
    "ignore_result": False,
}
PROPERTIES = {
    "reply_to": "elsewhere",
    "priority": "urgent",
    "delivery_tag": ["no", "string"],
    "delivery_info": 7,
    "body_encoding": "rot13",
    "correlation_id": {},
}
EMBEDDED = {"callbacks": [{"task": "x"}], "chain": [{"task": "x"}], "chord": {"task": "x"}}


def with_body(body, **changes):
    encoded = base64.b64encode(body if isinstance(body, bytes) else json.dumps(body).encode())
    return json.dumps(doorbell(SHARD) | {"body": encoded.decode()} | changes).encode()


def test_a_doorbell_is_understood() -> None:
    assert shard_id_in(PLAIN) == SHARD


def test_nothing_of_a_message_but_the_id_reaches_celery() -> None:
    message = doorbell(SHARD)
    message["headers"] |= HEADERS
    message["properties"] |= PROPERTIES
    message |= {"content-type": "application/x-python-serialize", "content-encoding": "binary"}
    raw = with_body([[SHARD], {"shard_id": "other"}, EMBEDDED], **{
        key: message[key] for key in message if key != "body"
    })  # fmt: skip
    made = doorbell(shard_id_in(raw))
    tag = made["headers"]["id"]
    assert str(UUID(tag)) == tag
    assert made == {
        "body": doorbell(SHARD)["body"],
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"lang": "py", "task": TASK, "id": tag},
        "properties": {
            "correlation_id": tag,
            "delivery_tag": tag,
            "delivery_info": {"exchange": "", "routing_key": QUEUE},
            "body_encoding": "base64",
        },
    }


UNREADABLE = {
    "a number": with_body(1),
    "null": with_body(None),
    "a string": with_body(SHARD),
    "no arguments": with_body([[], {}, {}]),
    "two arguments": with_body([[SHARD, SHARD], {}, {}]),
    "an argument by name": with_body([[], {"shard_id": SHARD}, {}]),
    "no id": with_body([["../../etc/passwd"], {}, {}]),
    "an id in capitals": with_body([[SHARD.upper()], {}, {}]),
    "an id in braces": with_body([["{" + SHARD + "}"], {}, {}]),
    "a list for an id": with_body([[[SHARD]], {}, {}]),
    "a pickle": with_body(pickle.dumps([[SHARD], {}, {}])),
    "compressed": with_body(gzip.compress(bytes(10**6))),
    "a body that is no text": json.dumps(doorbell(SHARD) | {"body": {"a": 1}}).encode(),
    "no body": b"{}",
    "nothing": b"",
    "no JSON": b"{",
    "a list": b"[]",
    "deep": b"[" * (MAX_BYTES - 1),
    "a deep body": with_body(b"[" * 4000),
    "a long number": with_body(b"1" * 5000),
    "no UTF-8": b"\xff\xfe" + PLAIN,
    "huge": PLAIN[:-1] + b' , "x": "' + b"x" * 10**7 + b'"}',
}


@pytest.mark.parametrize("raw", UNREADABLE.values(), ids=UNREADABLE)
def test_what_is_no_doorbell_has_no_id(raw) -> None:
    with within_limits():
        assert shard_id_in(raw) is None


@fuzz(1, few=300)
@given(
    raw=st.one_of(
        mutated(PLAIN),
        mutated(base64.b64decode(doorbell(SHARD)["body"])).map(with_body),
        st.binary(max_size=200),
        st.recursive(st.none() | st.text() | st.floats(allow_subnormal=False), st.lists).map(
            with_body
        ),
    )
)
def test_a_mutated_message_holds_an_id_or_none(raw) -> None:
    found = shard_id_in(raw)
    assert found is None or str(UUID(found)) == found
