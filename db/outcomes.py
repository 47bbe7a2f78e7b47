"""What jobs came to: the versions that they made, the numbers of those, and the gate's verdicts."""

from collections.abc import Collection
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.tables import Evaluation, Model, ModelVersion, Promotion


class Outcome(NamedTuple):
    """What some jobs came to."""

    versions: list[str]  # as in `digits:4`
    numbers: dict[str, Any]  # by metric, of the newest evaluation of one of these versions
    verdict: Promotion | None  # the latest


def of_jobs(session: Session, job_ids: Collection[str]) -> Outcome:
    """What these jobs came to."""
    made = (
        select(Model.name, ModelVersion.number, ModelVersion.id)
        .join(ModelVersion, ModelVersion.model_id == Model.id)
        .where(ModelVersion.job_id.in_(job_ids))
        .order_by(ModelVersion.created_at, ModelVersion.id)
    )
    versions = session.execute(made).all()
    measured = (
        select(Evaluation.numbers)
        .where(Evaluation.job_id.in_(job_ids))
        .where(Evaluation.version_id.in_([row.id for row in versions]))
        .order_by(Evaluation.id.desc())
    )
    judged = select(Promotion).where(Promotion.job_id.in_(job_ids)).order_by(Promotion.id.desc())
    return Outcome(
        [f"{row.name}:{row.number}" for row in versions],
        session.scalar(measured.limit(1)) or {},
        session.scalar(judged.limit(1)),
    )
