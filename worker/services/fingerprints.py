"""The fingerprints of a shard's samples: an object beside them, of 16 bytes a sample."""

from db.artifacts import FINGERPRINTS
from db.commits import NewArtifact, Range
from worker.media.base import Medium
from worker.store.base import Blob


def describe_fingerprints(
    shard: int, medium: Medium, blob: Blob, packed: Range | None = None
) -> NewArtifact:
    """What the record says of the fingerprints of shard number `shard` of a job."""
    return NewArtifact(
        FINGERPRINTS,
        f"fingerprints-{shard:06d}.bin",
        blob.key,
        blob.sha256,
        blob.size,
        media_type(medium),
        packed=packed,
    )


def media_type(medium: Medium) -> str:
    """That of the object with the fingerprints of samples of a medium."""
    return f"application/vnd.genmill.fingerprints; format=1; medium={medium.name}"
