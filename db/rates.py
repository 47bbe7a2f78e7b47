"""How fast workers make samples: learnt from finished shards, for each kind of work."""

from sqlalchemy.orm import Session

from db.session import clock, upsert
from db.tables import Rate

WEIGHT = 0.5  # of the newest measurement


def learn(session: Session, work_key: int, samples_per_second: float) -> None:
    """Record a measurement of one worker; recent ones count most."""
    known = of(session, work_key)
    if known is not None:
        samples_per_second = known + WEIGHT * (samples_per_second - known)
    row = {"work_key": work_key, "samples_per_second": samples_per_second, "at": clock(session)}
    upsert(session, Rate, [row])


def of(session: Session, work_key: int) -> float | None:
    """Samples a second of one worker, if any has been measured."""
    found = session.get(Rate, work_key)
    return found.samples_per_second if found else None
