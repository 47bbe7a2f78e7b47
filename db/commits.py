"""What a worker commits, as plain data, for code that knows no database."""

from dataclasses import dataclass


def blob_prefix(job_id: str) -> str:
    """What the store keys of all objects begin with that this job's shards store."""
    return f"jobs/{job_id}/blobs"


def blob_key(job_id: str, sha256: str) -> str:
    """The store key of an object of this job: it follows from the digest."""
    return f"{blob_prefix(job_id)}/{sha256}"


@dataclass(frozen=True)
class NewIndex:
    r"""The index of the samples inside an object (`worker.media.samples.index`).

    A short one is `data`; a longer one is among the job's blobs in the store, under `sha256`.
    `members_sha256` is the digest over the lines `number digest\n`, for the job's manifest.
    """

    samples: range
    members_sha256: str
    data: bytes | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class NewArtifact:
    """An object that is in the store and is about to be recorded.

    `kind` is samples, weights, preview or report; `name` is its file name when downloaded, unique
    within its shard. Only samples have an `index`.
    """

    kind: str
    name: str
    key: str
    sha256: str
    size: int
    media_type: str
    index: NewIndex | None = None
