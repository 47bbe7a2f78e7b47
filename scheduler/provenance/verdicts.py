"""The verdict on a file: what is known of it, folded into one of four answers."""

from dataclasses import dataclass, field
from enum import StrEnum

from scheduler.provenance.changes import Change
from scheduler.provenance.registry import Near
from scheduler.results.finder import Found
from scheduler.results.pieces import Item
from worker.marks import find_mark
from worker.marks.base import DAMAGED, OURS, PRESENT, REVOKED, Reading, Stage
from worker.marks.record import MARK as RECORD
from worker.media.base import Medium
from worker.media.samples.record import Record, has_remains


class Verdict(StrEnum):
    """Whether a file was made here, and whether it is still as it was made."""

    INTACT = "intact"
    CHANGED = "changed"
    UNPROVEN = "unproven"
    FOREIGN = "not ours"


class KnownBy(StrEnum):
    """What shows that a file was made here."""

    BYTES = "bytes"  # all of them are on record
    SIGNATURE = "signature"
    RECORD = "record"  # that it carries, and that a sample on record has
    WATERMARK = "watermark"
    FINGERPRINT = "fingerprint"


@dataclass
class Evidence:
    """What is known of a file, or of something inside a file of many samples."""

    file: str
    item: Item
    is_offline: bool = False  # whether neither the record nor secrets could be asked
    medium: Medium | None = None
    found: Found | None = None  # the sample on record that it says it is, or has the bytes of
    readings: list[Reading] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    same_content: bool | None = None
    only_spelling: bool = False  # whether it is the same JSON, with other spaces or line ends
    is_text: bool = False  # whether it is a text without the line that it is from
    is_sample: bool = False  # whether it still is the sample that its record names
    # what a signature beside the file says, which binds the file and not its record
    claims: Record | None = None
    nearest: list[Near] = field(default_factory=list)
    beside: list[str] = field(default_factory=list)  # what is wrong with the files beside it
    removed: list[str] = field(default_factory=list)  # jobs that may have made it, in words

    @property
    def record(self) -> Record:
        """What the records of the copied samples have in common, or else the file's own record."""
        if self.claims is not None:
            return self.claims
        if self.copies:
            first, *others = (copy.record for copy in self.copies)
            return {
                name: value
                for name, value in first.items()
                if all(name in other and other[name] == value for other in others)
            }
        return self.item.piece.record if self.item.piece else {}

    @property
    def is_unknown(self) -> bool:
        """Whether it is no sample on record, neither by its bytes nor by its record and content."""
        is_known = self.found is not None and (self.found.intact is not False or self.is_sample)
        return not is_known and not self.item.refused

    @property
    def copies(self) -> list[Near]:
        """The samples that the file may be a copy of, by its look, sound or words."""
        return [near for near in self.nearest if near.is_copy]

    @property
    def copied(self) -> Near | None:
        """The sample that the file is a copy of; None if samples of several jobs may be it."""
        return self.copies[0] if len({copy.job for copy in self.copies}) == 1 else None

    def of_keys(self, state: str, *, signature: bool) -> Reading | None:
        """A mark in this state that our keys made: a signature, or else a watermark."""
        for reading in self.readings:
            mark = find_mark(reading.mark)
            is_signature = mark.stage is Stage.SIGNATURE
            # a watermark is found by our keys alone
            ours = reading.says.get("trust", None if signature else OURS) == OURS
            if reading.state == state and mark.purposes and is_signature == signature and ours:
                return reading
        return None


@dataclass(frozen=True)
class Judgement:
    """A verdict, what shows it, and a sentence that says so."""

    verdict: Verdict
    known_by: KnownBy | None
    why: str


def judge(evidence: Evidence) -> Judgement:
    """Fold what is known of a file into a verdict: the strongest evidence decides."""
    for rule in _RULES:
        if (found := rule(evidence)) is not None:
            return found
    why = "No mark of ours is in it, and no sample on record is like it."
    if evidence.medium is None:
        why = (
            "It cannot be read as a picture, a sound or a text, so no mark was looked for in it. "
            "Nothing else says that it is ours."
        )
    elif evidence.is_offline:
        why = (
            "No signature or record of ours is in it. Watermarks and the samples on record were "
            "not looked at: a trust bundle has neither."
        )
    return Judgement(Verdict.FOREIGN, None, why)


def _by_refusal(evidence: Evidence) -> Judgement | None:
    """For a part that was not read; the samples beside it have verdicts of their own."""
    if not evidence.item.refused:
        return None
    return Judgement(Verdict.UNPROVEN, None, f"Not verified: {evidence.item.refused}.")


def _by_bytes(evidence: Evidence) -> Judgement | None:
    if evidence.found is None or not evidence.found.intact:
        return None
    what = "its text" if evidence.is_text else "every byte"
    why = f"Made here, and not changed since: {what} is as it was stored."
    return Judgement(Verdict.INTACT, KnownBy.BYTES, why)


def _by_signature(evidence: Evidence) -> Judgement | None:
    if not evidence.of_keys(PRESENT, signature=True):
        return None
    why = "Made here, and not changed since: our signature fits every byte."
    return Judgement(Verdict.INTACT, KnownBy.SIGNATURE, why)


def _by_broken_signature(evidence: Evidence) -> Judgement | None:
    if not evidence.of_keys(DAMAGED, signature=True):
        return None
    why = (
        "It has a signature of ours that does not fit it: it was changed since, or the signature "
        "is that of another file."
    )
    return Judgement(Verdict.UNPROVEN, None, why)


def _by_revoked_key(evidence: Evidence) -> Judgement | None:
    revoked = [each for each in evidence.readings if each.says.get("trust") == REVOKED]
    if not revoked:
        return None
    is_signed = any(find_mark(each.mark).stage is Stage.SIGNATURE for each in revoked)
    why = (
        f"It has a {'signature' if is_signed else 'watermark'} made with a key of ours that was "
        "revoked: whoever has that key can mark any file, so nothing here shows whether it is ours."
    )
    return Judgement(Verdict.UNPROVEN, None, why)


def _by_record(evidence: Evidence) -> Judgement | None:
    if evidence.found is None or not evidence.is_sample:
        return None
    shown = "It still shows the same." if evidence.same_content else ""
    if evidence.only_spelling:
        shown = "Only the spacing, line ends or escapes of its JSON differ."
    why = f"Made here, but changed since: it is not as it was stored. {shown}"
    return Judgement(Verdict.CHANGED, KnownBy.RECORD, why.strip())


def _by_watermark(evidence: Evidence) -> Judgement | None:
    if not evidence.of_keys(PRESENT, signature=False):
        return None
    why = "Made here: our watermark is in it. It is not as it was stored, or no longer on record."
    if evidence.copies:
        why = f"{_COPY}: our watermark is in it, and {_origin_of(evidence)}"
    return Judgement(Verdict.CHANGED, KnownBy.WATERMARK, why)


def _by_look(evidence: Evidence) -> Judgement | None:
    if not evidence.copies:
        return None
    return Judgement(Verdict.CHANGED, KnownBy.FINGERPRINT, f"{_COPY}: {_origin_of(evidence)}")


def _origin_of(evidence: Evidence) -> str:
    """Which samples a copy may be of, as the end of a sentence."""
    if len(evidence.copies) == 1:
        return "its content is that of no other."
    if evidence.copied is not None:
        return "its content is that of several samples of this job."
    return "its content is that of samples of several jobs, and which of them it was is not known."


def _by_claim(evidence: Evidence) -> Judgement | None:
    if evidence.item.piece is None:
        return None
    if evidence.found is not None and evidence.found.intact is None:
        why = "The record of a sample that was made here; the sample itself is not in this file."
        return Judgement(Verdict.UNPROVEN, KnownBy.RECORD, why)
    if evidence.found is not None:
        why = (
            "It has the record of a sample of ours, as anybody can copy it, and is not that sample."
        )
        return Judgement(Verdict.UNPROVEN, None, why)
    gone = f" {evidence.removed[0]}." if evidence.removed else ""
    why = (
        f"It says that it was made by Genmill, as anybody could write: nothing here shows it.{gone}"
    )
    return Judgement(Verdict.UNPROVEN, None, why)


def _by_remains(evidence: Evidence) -> Judgement | None:
    """For a file with a record that is damaged, or that is not whole."""
    is_partial = any(
        each.state == DAMAGED or len(_OWN_NAMES & each.says.keys()) > 1
        for each in evidence.readings
        if each.mark == RECORD.name
    )
    if not is_partial and not has_remains(evidence.item.data):
        return None
    why = "cannot be read as a picture, a sound or a text" if evidence.medium is None else _CUT
    why = f"It names Genmill, and {why}, so nothing here shows whether it is ours."
    return Judgement(Verdict.UNPROVEN, None, why)


_OWN_NAMES = {"genmill", "weights_sha256", "micro_batch", "digital_source_type"}  # in a record
_CUT = "is cut off or damaged: its record cannot be read"
_COPY = "A changed copy of a sample that was made here"
_RULES = (
    *(_by_refusal, _by_bytes, _by_signature, _by_record, _by_watermark, _by_look),
    *(_by_broken_signature, _by_revoked_key, _by_claim, _by_remains),
)
