"""Shared by the fuzz tests: how many examples, how bytes are mutated, what an answer may cost.

`GENMILL_FUZZ=20000` tries about that many in each file of tests, as `make fuzz` does; by default it
is a few hundred.
"""

import os
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

LONGEST_S = 5  # of the processor, so that a busy machine fails no example
MEMORY_KIB = 1 << 20  # that the process may grow by: 1 GiB


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


@contextmanager
def within_limits() -> Iterator[None]:
    """Fail where the block takes more than 5 seconds or 1 GiB."""
    begun, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.process_time() - begun < LONGEST_S
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEMORY_KIB
