"""Evaluations as the gate takes them: numbers from the record, items from the store."""

import hashlib

from sqlalchemy.orm import Session

from db import datasets, evaluations
from db.errors import DigestMismatch
from db.tables import Evaluation
from worker.gate.items import Items, Numbers, read_arrays
from worker.gate.policy import Policy
from worker.services.connections import Services


def read_items(services: Services, evaluation: Evaluation, policy: Policy | None = None) -> Items:
    """One evaluation with its arrays, and the version's numbers on the datasets of the guards.

    Raises `NotFound`, `DigestMismatch` or `BadInput` if its items are lost or damaged.
    """
    with services.store.open(evaluation.items_key) as file:
        content = file.read()
    found = hashlib.sha256(content).hexdigest()
    if found != evaluation.items_sha256:
        raise DigestMismatch(
            f"object {evaluation.items_key} has SHA-256 {found}, not {evaluation.items_sha256}"
        )
    guards = policy.guard if policy else ()
    elsewhere = {guard.dataset for guard in guards if guard.dataset}
    with services.database.read() as session:
        numbers = {name: _numbers_on(session, evaluation, name) for name in sorted(elsewhere)}
    return Items(read_arrays(content), evaluation.numbers, evaluation.protocol_sha256, numbers)


def _numbers_on(session: Session, evaluation: Evaluation, reference: str) -> Numbers:
    """The numbers of the same version on another dataset; none if it was not evaluated there."""
    data = datasets.resolve(session, reference)[1]
    found = evaluations.newest(session, evaluation.version_id, data.id)
    return found.numbers if found else {}
