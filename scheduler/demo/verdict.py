"""What the demo says of a trained version: its numbers, and what the gate decided."""

from collections.abc import Iterator, Sequence

from db import chains, outcomes
from db.tables import Job
from worker.services import Services

SHOWN = ("kid", "precision", "recall", "label_agreement", "memorisation", "made_to_real_accuracy")


def chain_of(services: Services, first: Job) -> list[Job]:
    """A training, its evaluation and its promotion."""
    with services.database.read() as session:
        return chains.whole(session, first.id)


def tell_verdict(services: Services, job_ids: Sequence[str]) -> Iterator[str]:
    """Lines with the numbers of the version that a chain's jobs made, and the gate's verdict."""
    with services.database.read() as session:
        found = outcomes.of_jobs(session, job_ids)
        entry = found.verdict
    yield f"{', '.join(found.versions)} was measured against held-out digits:"
    for name in SHOWN:
        if name in found.numbers:
            number = found.numbers[name]
            real = "" if number["real"] is None else f", real digits {number['real']:.3g}"
            interval = f"{number['low']:.3g} to {number['high']:.3g}"
            yield f"  {name:22} {number['value']:.3g} (95%: {interval}){real}"
    if entry is not None:
        reasons = "; ".join((entry.verdict or {}).get("reasons", ()))
        yield f"{entry.outcome} by the gate: {reasons}"
