"""Choosing what to run next: a hundred shards out of a thousand and out of a million."""

import itertools
from collections.abc import Callable, Iterator

from db.session import Database
from tests.bench.bench import Bench
from tests.bench.fill import Shape
from tests.bench.measure import Measure, against_limit, seconds, summary
from tests.bench.protocol import choose, claim_together
from tests.bench.records import KINDS, Filled, filled

CHOSEN = 100
LIMIT_MS = 20.0
WARM_UPS, TURNS = 2, 15  # a turn takes some milliseconds

Step = Callable[[Database, str, int], None]


def choosing(bench: Bench) -> Iterator[Measure]:
    """Milliseconds to choose 100 shards, for several ways of dividing the queue.

    The transaction is rolled back, so that each turn finds the same queue.
    """
    return _against_a_thousand(bench, "choosing", choose, limit_ms=LIMIT_MS)


def claiming(bench: Bench) -> Iterator[Measure]:
    """The same to claim 100 shards together: choose, lock and move them, record the attempts."""
    return _against_a_thousand(bench, "claiming", claim_together)


def _against_a_thousand(
    bench: Bench, verb: str, step: Step, *, limit_ms: float | None = None
) -> Iterator[Measure]:
    many = bench.size(1_000_000, 5_000)
    for kind, shape in itertools.product(KINDS, shapes(many)):
        large, small = (filled(bench, kind, each) for each in (shape, scaled(shape, many // 1000)))
        turns = [
            (_milliseconds(step, large), _milliseconds(step, small))
            for _ in range(WARM_UPS + max(bench.pairs, TURNS))
        ]
        title = f"{verb} {CHOSEN} of {many:,} shards against 1,000 ({shape.name}, {kind})"
        found = summary(title, "ms", turns[WARM_UPS:], at_most=2)
        yield found
        if limit_ms:
            name = title.replace(" against 1,000", f" in {limit_ms:g} ms")
            yield against_limit(name, "ms", found.ours, limit_ms)


def shapes(shards: int) -> list[Shape]:
    """A queue of this many shards, divided in four ways."""
    return [
        Shape(jobs=1, shards=shards),
        Shape(jobs=shards),
        Shape(jobs=shards, batches=1),
        Shape(jobs=1000, shards=shards // 1000),
    ]


def scaled(shape: Shape, factor: int) -> Shape:
    """The same way of dividing a queue that has a `factor`-th of the shards."""
    if shape.shards > 1:
        return Shape(shape.jobs, max(1, shape.shards // factor), shape.batches)
    return Shape(max(1, shape.jobs // factor), 1, shape.batches)


def _milliseconds(step: Step, queue: Filled) -> float:
    return 1000 * seconds(lambda: step(queue.database, queue.boot, CHOSEN))
