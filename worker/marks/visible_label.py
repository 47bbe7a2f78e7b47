"""The explicit label of GB 45438-2025, which people see in a picture or text, or hear in a sound.

Pictures get letters of at least 5% of their shortest side, sounds a rhythm, texts a closing line.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from db.errors import BadInput
from worker.complaints import matching
from worker.marks.base import ABSENT, PRESENT, Mark, Marking, Reading, Stage, unreadable
from worker.media.samples.containers import SampleRecord
from worker.media.samples.tags import Label, Tag
from worker.specs import Params

if TYPE_CHECKING:
    from worker.keys.keyring import Keyring
    from worker.media.base import Medium

TAG = "AILabel"  # names the label's text to whoever looks for it in the picture
SHARE = 0.05

Text = Annotated[
    str,
    Field(max_length=200),
    matching(r"[^\x00-\x1f\x7f\ud800-\udfff]*", "use one line without control signs"),
]


class LabelSettings(Params):
    """The text, and how large it is in pictures."""

    text: Text = Field("", description="default: AI生成; in sounds, AI in Morse code")
    share: float = Field(
        SHARE, ge=SHARE, le=0.2, description="of a picture's shortest side that letters are high"
    )


class VisibleLabel(Mark):
    """A label in the content itself."""

    name = "visible_label"
    stage = Stage.CONTENT
    schema = LabelSettings
    precedence = -1  # a watermark has to begin where the file does

    def check(self, settings: LabelSettings, medium: "Medium") -> None:
        """Refuse a text that cannot be drawn."""
        medium.check_label(settings.text or medium.label_text)

    def misfit(self, sample: SampleRecord, marking: Marking) -> str:
        """A small picture has no room for legible letters."""
        return marking.medium.label_misfit(sample.output, self._label(marking), marking.shape)

    def apply_content(
        self, samples: Sequence[SampleRecord], marking: Marking
    ) -> Sequence[SampleRecord]:
        """Pictures with letters, sounds with a rhythm before them, texts with a further line."""
        medium, label = marking.medium, self._label(marking)
        return [
            replace(each, output=medium.with_label(each.output, label, marking.shape))
            for each in samples
        ]

    def tags(self, sample: SampleRecord, marking: Marking) -> Sequence[Tag]:
        """The label's text, if it is not the usual one: to find it again."""
        label = self._label(marking)
        return () if label == _usual(marking.medium) else (Tag(TAG, f"{label.share} {label.text}"),)

    def read(self, data: bytes, keys: "Keyring", medium: "Medium") -> Reading:
        """Looks for the label that the metadata name, else for the usual one."""
        try:
            label = _named(medium, data)
            found = medium.has_label(data, label)
        except BadInput as error:
            return unreadable(self.name, error)
        says = {"text": label.text} if found else {}
        return Reading(self.name, PRESENT if found else ABSENT, says)

    def _label(self, marking: Marking) -> Label:
        told = marking.settings(self.name, LabelSettings)
        return Label(told.text or marking.medium.label_text, told.share)


def _usual(medium: "Medium") -> Label:
    return Label(medium.label_text, SHARE)


def _named(medium: "Medium", data: bytes) -> Label:
    [place] = medium.tag_places(TAG, "")
    share, _, text = medium.read_tags(data).get(place, "").partition(" ")
    try:
        return Label(text, float(share))
    except ValueError:
        return _usual(medium)


MARK = VisibleLabel()
