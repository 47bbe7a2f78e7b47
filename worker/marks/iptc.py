"""IPTC's Digital Source Type: that content was made by a model, as large platforms read it.

Source: IPTC Photo Metadata Standard 2025.1, property Iptc4xmpExt:DigitalSourceType.
"""

from typing import ClassVar, Literal

from pydantic import Field

from worker.marks.base import Marking
from worker.marks.tagged import TagMark
from worker.media.samples.containers import SampleRecord
from worker.media.samples.record import AI_GENERATED
from worker.specs import Params

NAME = "DigitalSourceType"
_VOCABULARY = AI_GENERATED.rpartition("/")[0]


class IptcSettings(Params):
    """Which term of IPTC's vocabulary the samples get."""

    source: Literal[
        "trainedAlgorithmicMedia", "compositeWithTrainedAlgorithmicMedia", "algorithmicMedia"
    ] = Field("trainedAlgorithmicMedia", description="how the content came about")


class IptcMark(TagMark):
    """The term, as its address."""

    name = "iptc"
    schema = IptcSettings
    properties: ClassVar[dict[str, str]] = {NAME: "Iptc4xmpExt:DigitalSourceType"}

    def texts(self, sample: SampleRecord, marking: Marking) -> dict[str, str]:
        """Equal for all samples."""
        return {NAME: f"{_VOCABULARY}/{marking.settings(self.name, IptcSettings).source}"}


MARK = IptcMark()
