"""The record in the file: model, weights, seed and settings, in plain JSON. Every sample has it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from pydantic import JsonValue

from db.errors import BadInput
from worker.marks.base import ABSENT, DAMAGED, PRESENT, Mark, Marking, Reading, Stage
from worker.media.samples.containers import SampleRecord

if TYPE_CHECKING:
    from worker.keys.keyring import Keyring
    from worker.media.base import Medium


class RecordMark(Mark):
    """Encoding writes it; this mark reads it back."""

    name = "record"
    stage = Stage.BYTES

    def read(self, data: bytes, keys: "Keyring", medium: "Medium") -> Reading:
        """All that the record says."""
        try:
            return Reading(self.name, PRESENT, medium.read_record(data))
        except BadInput as error:
            state = DAMAGED if medium.claims(data) and b"genmill" in data else ABSENT
            return Reading(self.name, state, why=error.message if state == DAMAGED else "")

    def read_back(
        self, samples: Sequence[SampleRecord], data: Sequence[bytes], marking: Marking
    ) -> Iterator[Reading | None]:
        """A record need not be parsed if it is, byte for byte, the sample's."""
        medium = marking.medium
        for sample, each in zip(samples, data, strict=True):
            written = medium.has_record(each, sample)
            yield None if written else self.read(each, marking.keys, medium)

    def expected(self, sample: SampleRecord, marking: Marking) -> Mapping[str, JsonValue]:
        """The whole record."""
        return {**sample.shared.record, "index": sample.index}


MARK = RecordMark()
