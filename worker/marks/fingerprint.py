"""The look of a sample, by which a near copy of it is found; nothing is written into the file.

It stands in where no watermark fits: the samples on record can be asked whose copy a file is.
"""

from typing import TYPE_CHECKING

from db.errors import BadInput
from worker.marks.base import (
    DAMAGED,
    NOT_APPLICABLE,
    PRESENT,
    Mark,
    Marking,
    Reading,
    Stage,
)
from worker.media.samples.containers import SampleRecord

if TYPE_CHECKING:
    from worker.keys.keyring import Keyring
    from worker.media.base import Medium


class Fingerprint(Mark):
    """The lowest frequencies of a picture; other media have none."""

    name = "fingerprint"
    stage = Stage.BYTES
    is_written = False

    def misfit(self, sample: SampleRecord, marking: Marking) -> str:
        """Only media whose samples are known by their look."""
        medium = marking.medium
        return "" if medium.recognised else f"{medium.name} samples are not known by their look"

    def read(self, data: bytes, keys: "Keyring", medium: "Medium") -> Reading:
        """The frequencies as hexadecimal digits, two for each."""
        if not medium.recognised:
            why = f"{medium.name} samples are not known by their look"
            return Reading(self.name, NOT_APPLICABLE, why=why)
        try:
            found = medium.sketch_of_file(data)
        except BadInput as error:
            return Reading(self.name, DAMAGED, why=error.message)
        return Reading(self.name, PRESENT, {"sketch": found.tobytes().hex()})


MARK = Fingerprint()
