"""Evaluations: the numbers of model versions."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.tables import Evaluation


def find(session: Session, version_id: str, protocol_sha256: str) -> Evaluation | None:
    """The version's evaluation under a protocol; None if it has none."""
    same = (Evaluation.version_id == version_id, Evaluation.protocol_sha256 == protocol_sha256)
    return session.scalar(select(Evaluation).where(*same))


def of_version(session: Session, version_id: str) -> list[Evaluation]:
    """A version's evaluations, newest first."""
    mine = select(Evaluation).where(Evaluation.version_id == version_id)
    return list(session.scalars(mine.order_by(Evaluation.created_at.desc(), Evaluation.id.desc())))


def newest(
    session: Session, version_id: str, dataset_version_id: str | None = None
) -> Evaluation | None:
    """A version's newest evaluation, on a dataset version if one is given; None without any."""
    return next(
        (
            each
            for each in of_version(session, version_id)
            if dataset_version_id in {None, each.dataset_version_id}
        ),
        None,
    )
