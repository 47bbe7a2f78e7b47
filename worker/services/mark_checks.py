"""Whether the marks of a sample read back, before it is published: what does not stays here."""

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from worker.keys.keyring import load_keyring
from worker.mark_profile import Profile
from worker.marks import find_mark
from worker.marks.base import DAMAGED, PRESENT, Mark
from worker.media.base import Medium
from worker.services.connections import Services

if TYPE_CHECKING:
    from worker.keys.keyring import Keyring

LACKED = "not_applied"  # in the counts of an artifact


class MarkChecks:
    """Checks samples of one medium that were made with a profile of marks, if with any."""

    def __init__(self, services: Services, profile: Profile | None, medium: Medium) -> None:
        self._services, self._profile, self._medium = services, profile, medium

    def fault(self, data: bytes, counts: Mapping[str, Any] | None) -> str:
        """Why a sample's marks do not read back; empty if they do.

        `counts` say of the object that holds it whether a mark did not fit some of its samples,
        which then lack it.
        """
        for mark in self._marks:
            reading = mark.read(data, self._keys, self._medium)
            may_lack = mark.statistical or bool((counts or {}).get(mark.name, {}).get(LACKED))
            lacks = reading.state not in {PRESENT, DAMAGED}
            if reading.state != PRESENT and not (lacks and may_lack):
                why = f": {reading.why}" if reading.why else ""
                return f"its mark {mark.name} reads back as {reading.state}{why}"
        return ""

    @cached_property
    def _marks(self) -> list[Mark]:
        found = map(find_mark, self._profile.marks) if self._profile else ()
        return [mark for mark in found if mark.is_written]

    @cached_property
    def _keys(self) -> "Keyring":
        with self._services.database.read() as session:
            ring = load_keyring(session, self._services.settings)
        return ring.use(self._profile.keys) if self._profile else ring
