"""The implicit label of GB 45438-2025: a JSON object under the key `AIGC` in the metadata.

Pictures have it as the EXIF user comment, in a text chunk and in XMP; sounds in ID3 and XMP; texts
as a key of their line. Source: GB 45438-2025, annexes E and F, as summarised by third parties.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, JsonValue

from worker.marks.base import DAMAGED, PRESENT, Marking, Reading
from worker.marks.licence import Line
from worker.marks.tagged import TagMark
from worker.media.samples.containers import SampleRecord
from worker.media.samples.tags import AIGC
from worker.specs import Params

if TYPE_CHECKING:
    from worker.keys.keyring import Keyring
    from worker.media.base import Medium

MADE_BY_AI = "1"
FIELDS = (
    "Label",
    "ContentProducer",
    "ProduceID",
    "ReservedCode1",
    "ContentPropagator",
    "PropagateID",
    "ReservedCode2",
)


class AigcSettings(Params):
    """Who makes the samples and who passes them on, by name or code."""

    producer: Line = Field("genmill", description="ContentProducer: your name or code")
    propagator: Line = Field("", description="ContentPropagator: who publishes the samples")


class AigcMark(TagMark):
    """The label. A sample's `ProduceID` is a digest of its record, so no two have the same."""

    name = "aigc"
    varies = True
    schema = AigcSettings
    properties: ClassVar[dict[str, str]] = {AIGC: "TC260:AIGC"}

    def texts(self, sample: SampleRecord, marking: Marking) -> dict[str, str]:
        """The JSON object, in ASCII."""
        told = marking.settings(self.name, AigcSettings)
        produced = hashlib.sha256(sample.json).hexdigest()[:32]
        passed_on = produced if told.propagator else ""
        values = (MADE_BY_AI, told.producer, produced, "", told.propagator, passed_on, "")
        label = dict(zip(FIELDS, values, strict=True))
        return {AIGC: json.dumps(label, separators=(",", ":"))}

    def read(self, data: bytes, keys: "Keyring", medium: "Medium") -> Reading:
        """Says the fields of the object too."""
        reading = super().read(data, keys, medium)
        if reading.state != PRESENT:
            return reading
        try:
            label = json.loads(str(reading.says[AIGC]))
        except ValueError:
            label = None
        if not isinstance(label, dict) or "Label" not in label:
            return Reading(self.name, DAMAGED, why="its label is no JSON object with `Label`")
        fields: Mapping[str, JsonValue] = {**reading.says, "fields": label}
        return Reading(self.name, PRESENT, fields)


MARK = AigcMark()
