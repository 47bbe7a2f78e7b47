"""Where a sample comes from: the JSON record that it carries.

A record states what the sample's bytes depend on and nothing else: no job, shard, worker or time.
So the same sample has the same bytes however the work was divided, and its record is all that
`reproduce` needs. It also states that the content is AI-generated, by the term of IPTC's vocabulary
that the labels of the EU and of large platforms rely on.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from typing import Any

from db.errors import BadInput
from worker.code_version import code_version
from worker.conversations import Conversation

AI_GENERATED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
CREDENTIALS = "c2pa"  # the key of a line with a text whose C2PA manifest it is, in base64

Record = dict[str, Any]

_OBJECT = re.compile(rb"(?:\xef\xbb\xbf)?[ \t\r\n]*\{")
_REMAINS = re.compile(rb'"weights_sha256"[ \t\r\n]*:[ \t\r\n]*"[0-9a-f]')
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)


@cache
def _torch_version() -> str:
    return version("torch")  # reads and parses a file


@dataclass(frozen=True)
class Origin:
    """What all samples of a job share."""

    family: str
    model: str  # pinned, "digits:3"
    weights_sha256: str
    seed: int
    sampling: Mapping[str, Any]  # all of the family's sampling settings
    micro_batch: int  # the actual one: a lack of memory may have halved that of `sampling`
    device: str = "cpu"  # cpu | cuda: bytes are equal on devices of one type
    precision: str = "fp32"
    dataset: str | None = None  # pinned, "mnist:1", if samples are made from images
    marks: str | None = None  # the profile of marks, if samples carry more than this record
    genmill: str = field(default_factory=code_version)
    torch: str = field(default_factory=_torch_version)

    def record(
        self,
        index: int,
        *,
        label: str | None = None,
        prompt: str | Conversation | None = None,
        custom_id: str | None = None,
    ) -> Record:
        """The record of sample `index`: plain data with the same keys in the same order."""
        settings = {k: v for k, v in self.sampling.items() if k != "micro_batch"}
        record = {
            "custom_id": custom_id,
            "index": index,
            "seed": self.seed,
            "label": label,
            "prompt": prompt.messages if isinstance(prompt, Conversation) else prompt,
            "model": self.model,
            "family": self.family,
            "weights_sha256": self.weights_sha256,
            "dataset": self.dataset,
            "sampling": settings,
            "micro_batch": self.micro_batch,
            "device": self.device,
            "precision": self.precision,
            "genmill": self.genmill,
            "torch": self.torch,
            "digital_source_type": AI_GENERATED,
        }
        return record | ({"marks": self.marks} if self.marks else {})

    def shared(
        self,
        *,
        label: str | None = None,
        prompt: str | Conversation | None = None,
        custom_id: str | None = None,
    ) -> "SharedRecord":
        """What the records of all samples with this label, prompt and custom id share."""
        return SharedRecord(self.record(0, label=label, prompt=prompt, custom_id=custom_id))


class SharedRecord:
    """What the records of samples share that differ in their index alone: all the rest."""

    def __init__(self, record: Record) -> None:
        """`record` is that of any of the samples."""
        self.record = record
        items = [*record.items()]
        at = [*record].index("index")
        before, after = to_json(dict(items[:at])), to_json(dict(items[at + 1 :]))
        comma = "," if at else ""
        self.parts = (
            f'{before[:-1]}{comma}"index":',
            f",{after[1:]}",
        )  # of the JSON around the index
        self._bytes = self.parts[0].encode(), self.parts[1].encode()

    def json(self, index: int) -> bytes:
        """The record of sample `index` as `to_json` writes it, in UTF-8."""
        return (b"%d" % index).join(self._bytes)


def parse_record(text: str | bytes, source: str) -> Record:
    """The inverse of `to_json`; `BadInput` about `source` if `text` is not a record."""
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{source} has no readable record: {error}") from None
    if not isinstance(record, dict):
        raise BadInput(f"{source} holds {str(record)[:80]!r} in place of a record")
    return record


def begins_as_object(data: bytes) -> bool:
    """Whether bytes begin as a JSON object, perhaps behind spaces or the mark of UTF-8."""
    return _OBJECT.match(data) is not None


def has_remains(data: bytes) -> bool:
    """Whether something of a record can still be seen in bytes, however damaged, or as UTF-16."""
    plain = data.replace(b"\0", b"")
    return b"genmill" in plain and _REMAINS.search(plain) is not None


def to_json(record: Mapping[str, Any]) -> str:
    """A record as one line of JSON, in its own order, not escaped."""
    return _ENCODER.encode(record)
