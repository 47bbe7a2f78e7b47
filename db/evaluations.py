"""Evaluations, the numbers of model versions; and judges, the networks that they rest on."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from db import ledger
from db.columns import new_id
from db.errors import NotFound
from db.leaves import EVALUATION
from db.session import clock, insert_new
from db.tables import Evaluation, Judge


@dataclass(frozen=True)
class NewEvaluation:
    """Numbers that were measured and are about to be recorded; their items are in the store.

    The fields are the columns of `Evaluation`.
    """

    version_id: str
    dataset_version_id: str
    job_id: str
    protocol: dict[str, Any]
    protocol_sha256: str
    numbers: dict[str, Any]
    items_key: str
    items_sha256: str


def add(session: Session, new: NewEvaluation) -> None:
    """Record an evaluation, unless the version has one of the same protocol."""
    row = vars(new) | {"id": new_id(), "created_at": clock(session)}
    if insert_new(session, Evaluation, [row]):
        ledger.enter(session, EVALUATION, row)


def find(session: Session, version_id: str, protocol_sha256: str) -> Evaluation | None:
    """The version's evaluation under a protocol; None if it has none."""
    same = (Evaluation.version_id == version_id, Evaluation.protocol_sha256 == protocol_sha256)
    return session.scalar(select(Evaluation).where(*same))


def of_version(session: Session, version_id: str) -> list[Evaluation]:
    """A version's evaluations, newest first."""
    mine = select(Evaluation).where(Evaluation.version_id == version_id)
    return list(session.scalars(mine.order_by(Evaluation.created_at.desc(), Evaluation.id.desc())))


def of_job(session: Session, job_id: str) -> list[Evaluation]:
    """The evaluations that a job made, oldest first."""
    made = select(Evaluation).where(Evaluation.job_id == job_id)
    return list(session.scalars(made.order_by(Evaluation.id)))


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


def find_judge(session: Session, dataset_version_id: str, recipe: str) -> Judge | None:
    """The judge of a dataset version that was trained by a recipe; None if there is none."""
    same = (Judge.dataset_version_id == dataset_version_id, Judge.recipe == recipe)
    return session.scalar(select(Judge).where(*same))


def add_judge(session: Session, *, dataset_version_id: str, recipe: str, **columns: Any) -> Judge:
    """Record a judge, unless there is one of the recipe by now; return the one that counts."""
    row = {"id": new_id(), "dataset_version_id": dataset_version_id, "recipe": recipe}
    insert_new(session, Judge, [row | columns | {"created_at": clock(session)}])
    found = find_judge(session, dataset_version_id, recipe)
    assert found is not None  # noqa: S101 - for mypy: it was inserted here, or by another before
    return found


def own_judge(session: Session, dataset_version_id: str) -> Judge | None:
    """The judge that was trained on a dataset version alone; None if none has been."""
    mine = (Judge.dataset_version_id == dataset_version_id, Judge.recipe.startswith("own-"))
    statement = select(Judge).where(*mine)
    found: Judge | None = session.scalar(statement.order_by(Judge.id.desc()).limit(1))
    return found


def judge_of_digest(session: Session, sha256: str) -> Judge:
    """The judge with this digest. Raises `NotFound`."""
    found: Judge | None = session.scalar(select(Judge).where(Judge.sha256 == sha256).limit(1))
    if found is None:
        raise NotFound(f"no judge with SHA-256 {sha256} is on record")
    return found
