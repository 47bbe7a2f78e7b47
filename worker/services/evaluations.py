"""Evaluations as the gate takes them: numbers from the record, items from the store."""

import hashlib
from collections.abc import Mapping

from db.errors import DigestMismatch
from db.evaluations import NewEvaluation
from db.tables import Evaluation
from worker.gate.items import Items, Numbers, read_arrays
from worker.services.connections import Services

AnyEvaluation = Evaluation | NewEvaluation  # recorded, or about to be; its items are stored


def read_items(
    services: Services, evaluation: AnyEvaluation, elsewhere: Mapping[str, Numbers] | None = None
) -> Items:
    """One evaluation with its arrays; `elsewhere` are the version's numbers on other datasets.

    Raises `NotFound`, `DigestMismatch` or `BadInput` if its items are lost or damaged.
    """
    with services.store.open(evaluation.items_key) as file:
        content = file.read()
    found = hashlib.sha256(content).hexdigest()
    if found != evaluation.items_sha256:
        raise DigestMismatch(
            f"object {evaluation.items_key} has SHA-256 {found}, not {evaluation.items_sha256}"
        )
    arrays = read_arrays(content)
    return Items(arrays, evaluation.numbers, evaluation.protocol_sha256, elsewhere or {})
