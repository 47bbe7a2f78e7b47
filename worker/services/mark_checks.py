"""Whether the marks of a sample read back, before it is published: what does not stays here."""

from functools import cached_property
from typing import TYPE_CHECKING

from worker.keys.keyring import load_keyring
from worker.mark_profile import Profile
from worker.marks import find_mark
from worker.marks.base import ABSENT, DAMAGED, Mark, Reading
from worker.media.base import Medium
from worker.services.connections import Services

if TYPE_CHECKING:
    from worker.keys.keyring import Keyring


class MarkChecks:
    """Checks samples of one medium that were made with a profile of marks, if with any."""

    def __init__(self, services: Services, profile: Profile | None, medium: Medium) -> None:
        self._services, self._profile, self._medium = services, profile, medium

    def fault(self, data: bytes) -> str:
        """Why a sample's marks do not read back; empty if they do."""
        for mark in self._marks:
            reading = mark.read(data, self._keys, self._medium)
            if reading.state == DAMAGED or (reading.state == ABSENT and not mark.statistical):
                return f"its mark {mark.name} is {reading.state}{_because(reading)}"
        return ""

    @cached_property
    def _marks(self) -> list[Mark]:
        return [find_mark(name) for name in self._profile.marks] if self._profile else []

    @cached_property
    def _keys(self) -> "Keyring":
        with self._services.database.read() as session:
            return load_keyring(session, self._services.settings)


def _because(reading: Reading) -> str:
    return f": {reading.why}" if reading.why else ""
