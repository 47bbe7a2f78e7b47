"""Shared by the fuzz tests: how many examples, how bytes are mutated, what an answer may cost.

`GENMILL_FUZZ=20000` tries about that many in each file of tests, as `make fuzz` does; by default it
is a few hundred.
"""

import json
import os
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

LONGEST_S = 5  # of the processor, so that a busy machine fails no example
MEMORY_KIB = 1 << 20  # that the process may grow by: 1 GiB
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.text(max_size=8),
    st.sampled_from([0, -1, 1, 2, 3, 2**31, 0.5, -1e308, float("nan"), [], {}, [[]], [0], "[PAD]"]),
    st.sampled_from(["gpt2", "llama", "mamba", "F16", "BF16", "I8", "\ud800", "(a+)+$", "../x"]),
).map(deepcopy)  # fmt: skip # a list that two places shared could come to hold itself


def fuzz(tests: int, *, few: int) -> settings:
    """The settings of one of so many tests, which share the examples: `few` by default."""
    examples = -(-int(os.environ.get("GENMILL_FUZZ", few)) // tests)
    checks = list(HealthCheck)
    return settings(
        max_examples=examples, deadline=None, suppress_health_check=checks, database=None
    )


@st.composite
def mutated(draw: Callable[[Any], Any], data: bytes) -> bytes:
    """Some bytes overwritten, some cut out, some doubled, the end cut off or more behind it."""
    made = bytearray(data)
    for _ in range(draw(st.integers(1, 6))):
        place = draw(st.integers(0, max(len(made) - 1, 0)))
        length = draw(st.sampled_from([1, 1, 2, 4, 16, 64]))
        kind = draw(st.sampled_from(["set", "set", "ends", "cut", "double", "stop", "more"]))
        if kind == "set":
            made[place : place + length] = draw(st.binary(min_size=length, max_size=length))
        elif kind == "ends":
            made[place : place + length] = draw(st.sampled_from([b"\0", b"\xff", b"\x7f"])) * length
        elif kind == "cut":
            del made[place : place + length]
        elif kind == "double":
            made[place:place] = made[place : place + length]
        elif kind == "stop":
            del made[place:]
        else:
            made += draw(st.binary(max_size=64))
    return bytes(made)


def change_value(draw: Any, data: Any) -> None:
    """Replace, copy or remove a value somewhere in JSON data, as often near the top as deep."""
    inner = data
    while True:
        keys = [*inner] if isinstance(inner, dict) else range(len(inner))
        if not keys:
            return
        key = draw(st.sampled_from(keys))
        if not isinstance(inner[key], dict | list) or draw(st.booleans()):
            break
        inner = inner[key]
    change = draw(st.sampled_from(["replace", "replace", "copy", "remove", "add"]))
    if change == "replace":
        inner[key] = draw(VALUES)
    elif change == "copy":
        inner[key] = deepcopy(inner[draw(st.sampled_from(keys))])
    elif change == "remove":
        del inner[key]
    elif isinstance(inner, dict):
        inner[draw(st.text(max_size=8))] = deepcopy(inner[key])
    else:
        inner.append(deepcopy(inner[key]))


def change_json(draw: Any, text: str | bytes) -> bytes:
    """JSON with one to three values changed."""
    data = json.loads(text)
    for _ in range(draw(st.integers(1, 3))):
        change_value(draw, data)
    return json.dumps(data).encode()


@contextmanager
def within_limits() -> Iterator[None]:
    """Fail where the block takes more than 5 seconds or 1 GiB."""
    begun, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.process_time() - begun < LONGEST_S
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEMORY_KIB
