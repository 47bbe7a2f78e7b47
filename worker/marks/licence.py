"""Who owns a sample and what others may do with it: copyright, licence, creator."""

from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from worker.complaints import matching
from worker.marks.base import Marking
from worker.marks.tagged import TagMark
from worker.media.samples.containers import SampleRecord
from worker.media.samples.tags import COPYRIGHT
from worker.specs import Params

Line = Annotated[
    str,
    Field(max_length=500),
    matching(r"[^\x00-\x1f\x7f\ud800-\udfff\ufffe\uffff]*", "use one line without control signs"),
]
Url = Annotated[
    str, Field(max_length=500), matching(r"(https?://[!-~]+)?", "use an address: https://...")
]


class LicenceSettings(Params):
    """The statement, of which at least one part is given."""

    copyright: Line = Field("", description="as in: © 2026 Example Ltd")
    creator: Line = Field("", description="who made the samples")
    licence: Line = Field("", description="its name, as in: CC-BY-4.0")
    licence_url: Url = Field("", description="where it can be read")

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not any(dict(self).values()):
            names = ", ".join(type(self).model_fields)
            raise PydanticCustomError("licence", "give at least one of {names}", {"names": names})
        return self


class LicenceMark(TagMark):
    """The statement, in the metadata that search engines and picture tools show."""

    name = "licence"
    schema = LicenceSettings
    properties: ClassVar[dict[str, str]] = {
        COPYRIGHT: "dc:rights",
        "Creator": "dc:creator",
        "Licence": "xmpRights:UsageTerms",
        "LicenceUrl": "xmpRights:WebStatement",
    }

    def texts(self, sample: SampleRecord, marking: Marking) -> dict[str, str]:
        """Equal for all samples."""
        told = marking.settings(self.name, LicenceSettings)
        texts = (told.copyright, told.creator, told.licence, told.licence_url)
        return {name: text for name, text in zip(self.properties, texts, strict=True) if text}


MARK = LicenceMark()
