"""Shards: claim, renew, commit, fail, decline, release, reap. The lease protocol.

Every change is one fenced update of the shard under a lock on its job: shared, unless it moves the
job. `tests/unit/db/protocol_model.py` explores every order of these steps.
"""

from db.attempts import (
    Result,
    commit,
    commit_many,
    decline,
    fail,
    outcome,
    put_artifact,
    release,
    succeeded,
)
from db.checkpoints import (
    add_checkpoint,
    checkpoints_of_line,
    is_being_left,
    latest_checkpoint,
    leave_checkpoint,
    mark_bad,
)
from db.claims import Claim, unclaimed_samples
from db.commits import NewArtifact, NewIndex
from db.due import reset_dispatched, take_due
from db.leases import claim, claim_due
from db.reaping import MAX_CLAIMS, expired, holds, reap, reap_worker
from db.renewals import Beat, over, renew_all

__all__ = [
    "MAX_CLAIMS",
    "Beat",
    "Claim",
    "NewArtifact",
    "NewIndex",
    "Result",
    "add_checkpoint",
    "checkpoints_of_line",
    "claim",
    "claim_due",
    "commit",
    "commit_many",
    "decline",
    "expired",
    "fail",
    "holds",
    "is_being_left",
    "latest_checkpoint",
    "leave_checkpoint",
    "mark_bad",
    "outcome",
    "over",
    "put_artifact",
    "reap",
    "reap_worker",
    "release",
    "renew_all",
    "reset_dispatched",
    "succeeded",
    "take_due",
    "unclaimed_samples",
]
