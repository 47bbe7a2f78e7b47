"""What a worker commits, as plain data, for code that knows no database."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


def blob_prefix(job_id: str) -> str:
    """What the store keys of all objects begin with that this job's shards store."""
    return f"jobs/{job_id}/blobs"


def blob_key(job_id: str, sha256: str) -> str:
    """The store key of an object of this job: it follows from the digest."""
    return f"{blob_prefix(job_id)}/{sha256}"


def pack_key(number: int) -> str:
    """The store key of a pack: an object that holds the bytes of many artifacts or manifests."""
    return f"packs/{number:016x}"


@dataclass(frozen=True)
class Range:
    """Bytes `offset` to `offset + size` of the pack with this number."""

    pack: int
    offset: int
    size: int

    @property
    def key(self) -> str:
        """The pack's key in the store."""
        return pack_key(self.pack)


@dataclass(frozen=True)
class NewManifest:
    """A job's manifest, which is in the store: under a key of its own, or a range of a pack."""

    place: str | Range
    sha256: str


@dataclass(frozen=True)
class NewIndex:
    r"""The index of the samples inside an object (`worker.media.samples.index`).

    A short one is `data`. A longer one has the digest `sha256`: it is among the job's blobs in the
    store, or in the pack, right behind the artifact, if that is in a pack.
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
    within its shard. Only samples have an `index`. One that is not an object of its own is a range
    of `packed`. `marks` says what became of each mark of samples that have some.
    """

    kind: str
    name: str
    key: str
    sha256: str
    size: int
    media_type: str
    index: NewIndex | None = None
    packed: Range | None = None
    marks: Mapping[str, Any] | None = None
