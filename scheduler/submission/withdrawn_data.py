"""Warnings about model versions that learnt from withdrawn data.

A withdrawal names them and leaves them, so whoever tunes, promotes or publishes one is told again.
"""

import logging

from sqlalchemy.orm import Session

from db import lineage
from db.tables import ModelVersion
from worker.services.pinned import Pinned, PinnedPromotion, PinnedPublication, PinnedTraining

log = logging.getLogger(__name__)


def warn_of_job(session: Session, pinned: Pinned) -> None:
    """Warn of what a job tunes, promotes or publishes; not of what it takes down or generates."""
    if pinned.version is None or (isinstance(pinned, PinnedPublication) and pinned.spec.take_down):
        return
    if isinstance(pinned, PinnedTraining | PinnedPromotion | PinnedPublication):
        warn_of_version(session, pinned.version)


def warn_of_version(session: Session, version: ModelVersion) -> None:
    """Warn if a version, or one that it was tuned from, learnt from withdrawn data."""
    if data := lineage.withdrawn_data(session, version):
        log.warning(
            "%s learnt from withdrawn data: %s; train it anew on other data",
            lineage.model_reference(session, version),
            ", ".join(data),
        )
