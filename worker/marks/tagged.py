"""What marks share that are metadata: tags, which each medium writes where its readers look."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from pydantic import JsonValue

from db.errors import BadInput
from worker.marks.base import ABSENT, DAMAGED, PRESENT, Mark, Marking, Reading, Stage, unreadable
from worker.media.samples.containers import SampleRecord
from worker.media.samples.tags import Tag

if TYPE_CHECKING:
    from worker.keys.keyring import Keyring
    from worker.media.base import Medium

MOST_KEPT = 64  # tags of a job: few differ from sample to sample


class TagMark(Mark):
    """A mark that consists of tags. A reading says each tag's text, and where it is missing."""

    stage = Stage.BYTES
    properties: ClassVar[Mapping[str, str]]  # the XMP property of each tag, by the tag's name

    varies: ClassVar[bool] = False  # whether the texts depend on the sample, not on the job alone

    @abstractmethod
    def texts(self, sample: SampleRecord, marking: Marking) -> dict[str, str]:
        """The text of each tag that the sample gets, by the tag's name."""

    def tags(self, sample: SampleRecord, marking: Marking) -> Sequence[Tag]:
        """The texts as tags."""

        def make() -> list[Tag]:
            texts = self.texts(sample, marking).items()
            return [Tag(name, text, self.properties[name]) for name, text in texts]

        return make() if self.varies else marking.once(f"tags of {self.name}", make)

    def read_back(
        self, samples: Sequence[SampleRecord], data: Sequence[bytes], marking: Marking
    ) -> Iterator[Reading | None]:
        """Tags need not be read if they are, byte for byte, those of a file that said all."""
        said_all: set[bytes] = marking.once(f"tags read by {self.name}", set)
        for sample, each in zip(samples, data, strict=True):
            tags = b"" if self.varies else marking.medium.tag_bytes(each)
            if tags in said_all:
                yield None
                continue
            reading = self.read(each, marking.keys, marking.medium)
            says_all = self.expected(sample, marking).items() <= reading.says.items()
            if tags and reading.state == PRESENT and says_all and len(said_all) < MOST_KEPT:
                said_all.add(tags)
            yield reading

    def expected(self, sample: SampleRecord, marking: Marking) -> Mapping[str, JsonValue]:
        """Every text, in every place."""
        return {**self.texts(sample, marking), "missing": []}

    def read(self, data: bytes, keys: "Keyring", medium: "Medium") -> Reading:
        """Damaged if a text differs from place to place."""
        try:
            places = medium.read_tags(data)
        except BadInput as error:
            return unreadable(self.name, error)
        says: dict[str, JsonValue] = {}
        missing: list[JsonValue] = []
        for name, xmp in self.properties.items():
            here = {place: places.get(place) for place in medium.tag_places(name, xmp)}
            told = {text for text in here.values() if text is not None}
            if len(told) > 1:
                return Reading(self.name, DAMAGED, why=f"its {name} differs from place to place")
            if told:
                says[name] = told.pop()
                missing += [place for place, text in here.items() if text is None]
        if not says:
            return Reading(self.name, ABSENT)
        return Reading(self.name, PRESENT, {**says, "missing": missing})
