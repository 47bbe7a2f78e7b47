"""Where a sample came from: the JSON record that it carries.

A record names what the bytes depend on and nothing else: no job, shard, worker or time, so that the
same sample has the same bytes however the work was cut. `reproduce` needs only what is in it.
It also says that the content is AI-generated, in the word of IPTC's vocabulary, which the EU's and
the big platforms' labels read.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from db.errors import BadInput

AI_GENERATED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"

Record = dict[str, Any]


@dataclass(frozen=True)
class Origin:
    """What all samples of one generation share."""

    family: str
    model: str  # pinned, "digits:3"
    weights_sha256: str
    seed: int
    sampling: Mapping[str, Any]  # the family's sampling settings, all of them
    micro_batch: int  # as it ran: out of memory may have halved what `sampling` asked for
    device: str = "cpu"  # the type, for bytes are equal within one: cpu | cuda
    precision: str = "fp32"
    dataset: str | None = None  # pinned, "mnist:1": of the images that samples are made from
    genmill: str = field(default_factory=lambda: version("genmill"))
    torch: str = field(default_factory=lambda: version("torch"))

    def record(
        self,
        index: int,
        *,
        label: str | None = None,
        prompt: str | None = None,
        custom_id: str | None = None,
    ) -> Record:
        """The record of sample `index`: plain data, always the same keys in the same order."""
        settings = {k: v for k, v in self.sampling.items() if k != "micro_batch"}
        return {
            "custom_id": custom_id,
            "index": index,
            "seed": self.seed,
            "label": label,
            "prompt": prompt,
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


def parse_record(text: str, source: str) -> Record:
    """The inverse of `to_json`; `BadInput` about `source` where `text` is no record."""
    try:
        record = json.loads(text)
    except ValueError as error:
        raise BadInput(f"{source} has no readable record: {error}") from None
    if not isinstance(record, dict):
        raise BadInput(f"{source} holds {record!r} in place of a record")
    return record


def to_json(record: Mapping[str, Any]) -> str:
    """A record in one line of JSON, in its own order, with every language's letters as they are."""
    return json.dumps(record, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
