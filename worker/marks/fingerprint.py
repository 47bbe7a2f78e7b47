"""The fingerprint: nothing in the file, but a row beside the samples, by which copies are found.

What finds a copy that lost all its other marks: encoded again, smaller, cropped. The worker stores
a row for each sample as the artifact `KIND` of its shard (`worker.media.fingerprints.bits`);
`genmill provenance verify` looks a file up in those of all jobs.
"""

from typing import TYPE_CHECKING

from db.errors import BadInput
from worker.marks.base import NOT_APPLICABLE, PRESENT, Mark, Reading, Stage, unreadable
from worker.media.fingerprints.bits import encode

if TYPE_CHECKING:
    from worker.keys.keyring import Keyring
    from worker.media.base import Medium


class Fingerprint(Mark):
    """What a sample looks, sounds or reads like, kept by the installation that made it."""

    name = "fingerprint"
    stage = Stage.BYTES
    is_written = False

    def read(self, data: bytes, keys: "Keyring", medium: "Medium") -> Reading:
        """The fingerprint of a file; whose it is only the record of the installation says."""
        try:
            row = medium.fingerprints_of_file(data)[:1]
        except BadInput as error:
            return unreadable(self.name, error)
        if not row.any():
            return Reading(self.name, NOT_APPLICABLE, why="too plain to have a fingerprint")
        return Reading(self.name, PRESENT, {"fingerprint": encode(row).hex()})


MARK = Fingerprint()
