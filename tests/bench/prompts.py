"""Claims and renewals of a job with as many prompts as allowed, against one of the same samples.

The prompts are in the store: a job's row names them, and no step of a lease reads them.
"""

from collections.abc import Callable, Iterator

from db import jobs
from db.columns import new_id
from db.session import Database
from tests.bench.bench import Bench
from tests.bench.measure import Measure, seconds, summary
from tests.bench.protocol import FleetMember
from tests.bench.records import KINDS, record
from worker.services.prompts import row_of
from worker.specs import parse_spec

SHARDS, SAMPLES = 90, 1000  # of each shard
PROMPT = "a line of a file of prompts, two hundred characters long".ljust(200, ".")
WARM_UPS, TURNS = 3, 30


def leases(bench: Bench) -> Iterator[Measure]:
    """Milliseconds to claim a shard, and to renew its lease."""
    count = SHARDS * bench.size(SAMPLES, 10)
    for kind in KINDS:
        with record(bench, kind) as many, record(bench, kind) as none:
            sides = member(many, count, prompts=count), member(none, count, prompts=0)
            turns = [[claim_and_renew(side) for side in sides] for _ in range(WARM_UPS + TURNS)]
        for place, verb in enumerate(("claiming", "renewing")):
            pairs = [(ours[place], base[place]) for ours, base in turns[WARM_UPS:]]
            name = f"{verb} a shard of a job with {count:,} prompts, against none ({kind})"
            yield summary(name, "ms", pairs, at_most=2)


def member(database: Database, count: int, *, prompts: int) -> FleetMember:
    """A worker of a record whose job makes `count` samples."""
    data = {"kind": "generate", "model": "writer:1", "count": count, "seed": 0}
    data |= {"prompts": [{"prompt": f"{number} {PROMPT}"} for number in range(prompts)]}
    row, sha256 = row_of(parse_spec(data), data)
    size = count // SHARDS
    with database.write() as session:
        jobs.add(
            session,
            spec=row,
            spec_hash="0" * 64,
            kind="generate",
            model="writer",
            ranges=[(start, start + size) for start in range(0, count, size)],
            work_key=1,
            prompts_sha256=sha256,
        )
    made = FleetMember(database, new_id(), lease_s=3600)
    made.start()
    return made


def claim_and_renew(worker: FleetMember) -> tuple[float, float]:
    """Milliseconds of a claim and of a renewal."""
    claims = []
    claim_ms = _milliseconds(lambda: claims.append(worker.claim()))
    return claim_ms, _milliseconds(lambda: worker.renew(claims[0]))


def _milliseconds(work: Callable[[], object]) -> float:
    return 1000 * seconds(work)
