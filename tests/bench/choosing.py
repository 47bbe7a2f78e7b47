"""Choosing what to run next: a hundred shards out of a thousand and out of a million."""

from collections.abc import Iterator

from db.session import Database
from tests.bench.bench import Bench
from tests.bench.fill import Shape, add_worker, fill
from tests.bench.measure import Measure, against_limit, seconds, summary
from tests.bench.protocol import choose
from tests.bench.records import KINDS, record

CHOSEN = 100
LIMIT_MS = 20.0


def choosing(bench: Bench) -> Iterator[Measure]:
    """Milliseconds to choose 100 shards, for several ways of dividing the queue.

    The transaction is rolled back, so that each turn finds the same queue.
    """
    many = bench.size(1_000_000, 20_000)
    for kind in KINDS:
        for shape in shapes(many):
            with record(bench, kind) as small, record(bench, kind) as large:
                boots = _filled(small, scaled(shape, many // 1000)), _filled(large, shape)
                turns = [
                    (_milliseconds(large, boots[1]), _milliseconds(small, boots[0]))
                    for _ in range(max(bench.pairs, 3))
                ]
            title = f"choosing {CHOSEN} of {many:,} shards against 1,000 ({shape.name}, {kind})"
            found = summary(title, "ms", turns, at_most=2)
            yield found
            yield against_limit(f"{title}: under {LIMIT_MS:g} ms", "ms", found.ours, LIMIT_MS)


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


def _filled(database: Database, shape: Shape) -> str:
    fill(database, shape)
    boot = add_worker(database)
    choose(database, boot, CHOSEN)  # caches are warm
    return boot


def _milliseconds(database: Database, boot: str) -> float:
    return 1000 * seconds(lambda: choose(database, boot, CHOSEN))
