"""Publications as they stand in the record once something has been published."""

from collections.abc import Iterable
from datetime import timedelta

from sqlalchemy import update
from sqlalchemy.orm import Session

from db import targets
from db.columns import new_id
from db.publications import PUBLISHED, TAKEN_DOWN
from db.session import clock
from db.tables import Publication, Target


def add_target(session: Session, name: str = "site", address: str = "/nowhere") -> Target:
    settings = {"address": address}
    return targets.add(
        session, name=name, kind="gallery", settings=settings, secrets={}, who="ann@here"
    )


def publish(
    session: Session,
    target: Target,
    *,
    job_id: str | None = None,
    version_id: str | None = None,
    samples: Iterable[int] = (0, 1),
    expires_in: timedelta | None = None,
) -> None:
    """Record samples of a job, or files of a version, as published."""
    now = clock(session)
    for sample in samples:
        session.add(
            Publication(
                target_id=target.id,
                item=f"{job_id or version_id}/{sample:09d}.png",
                job_id=job_id,
                sample=None if job_id is None else sample,
                version_id=version_id,
                sha256="ab" * 32,
                size=10,
                media_type="image/png",
                state=PUBLISHED,
                event_id=new_id(),
                by_job_id=new_id(),
                fence=1,
                published_at=now,
                expires_at=None if expires_in is None else now + expires_in,
            )
        )
    session.flush()


def take_all_down(session: Session) -> None:
    gone = {"state": TAKEN_DOWN, "taken_down_at": clock(session), "expires_at": None}
    session.execute(update(Publication).values(gone))
