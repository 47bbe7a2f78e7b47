"""The contract of a mark: what a sample carries about itself, and how that is read back.

Marks are applied in the order of their stages: to arrays before they are encoded, then to encoded
bytes, and last of all the signature, which binds the bytes. Metadata labels are tags, which the
medium writes in one go when it encodes. See `worker.marks.apply.Marker`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from pydantic import JsonValue

from db.errors import BadInput
from worker.data.dataset import Shape
from worker.mark_profile import Profile
from worker.media import find_medium
from worker.media.samples.containers import SampleRecord
from worker.media.samples.tags import Tag
from worker.specs import Params

if TYPE_CHECKING:
    from worker.keys.keyring import Keyring
    from worker.media.base import Medium

__all__ = ["Mark", "Marking", "NoSettings", "Profile", "Reading", "Stage", "Tag"]

PRESENT, ABSENT, DAMAGED, NOT_APPLICABLE = "present", "absent", "damaged", "not applicable"
# what a reading says of the trust in its key, as `trust`
OURS, FOREIGN, REVOKED = "ours", "untrusted", "revoked"
P = TypeVar("P", bound=Params)
T = TypeVar("T")


class Stage(Enum):
    """When a mark is applied; in this order."""

    CONTENT = "content"  # to pixels, sounds or texts
    BYTES = "bytes"  # to encoded files
    SIGNATURE = "signature"  # to files that nothing else will change


class NoSettings(Params):
    """Of a mark that has nothing to set."""


@dataclass(frozen=True)
class Marking:
    """What all samples of a job share, made once for a shard from its spec."""

    profile: Profile
    keys: "Keyring"  # the secrets that the marks need
    shape: Shape  # of the samples; its `media` is the medium
    # the tokens of a text by the tokenizer of the model that made it, if it makes texts
    tokens: Callable[[str], Sequence[int]] | None = field(default=None, compare=False, repr=False)
    _made: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def medium(self) -> "Medium":
        """The medium of the samples."""
        return find_medium(self.shape.media)

    def settings(self, mark: str, schema: type[P]) -> P:
        """The settings of a mark, by its own schema; they were checked when the job was enqueued.

        They are parsed once: this may be called for each sample.
        """
        given = self.profile.settings
        return self.once(f"settings of {mark}", lambda: schema.model_validate(given.get(mark, {})))

    def once(self, name: str, make: Callable[[], T]) -> T:
        """What `make` returned when this was first called with `name`: the same for all samples."""
        if name not in self._made:
            self._made[name] = make()
        found: T = self._made[name]
        return found


@dataclass(frozen=True)
class Reading:
    """What one mark says about a file."""

    mark: str
    state: str  # "present" | "absent" | "damaged" | "not applicable"
    says: Mapping[str, JsonValue] = field(default_factory=dict)  # plain data
    why: str = ""  # of "damaged" and "not applicable"
    is_unread: bool = False  # whether the file could not be read: nothing shows that it had a mark


def unreadable(mark: str, error: BadInput) -> Reading:
    """Of a mark that cannot be sought, because no decoder takes the file."""
    return Reading(mark, DAMAGED, why=error.message, is_unread=True)


class Mark(ABC):
    """One mark. Each module of `worker.marks` that has a `MARK` is the mark of its own name.

    All methods but `read` have a default: a mark overrides those of its stage.
    """

    name: ClassVar[str]  # the module's
    stage: ClassVar[Stage]
    schema: ClassVar[type[Params]] = NoSettings  # of its settings in a profile
    purposes: ClassVar[tuple[str, ...]] = ()  # of the keys that it needs: signing, watermark
    # whether a reading may miss the mark by chance; what does is counted, and does not fail
    statistical: ClassVar[bool] = False
    precedence: ClassVar[int] = 0  # among the marks of its stage: lower ones are applied first
    is_written: ClassVar[bool] = True  # into the file, so that it can be read back

    def check(self, settings: Any, medium: "Medium") -> None:  # noqa: B027 - most refuse none
        """Refuse settings that samples of a medium cannot have. They are of this mark's schema."""

    def misfit_of_job(self, marking: Marking) -> str:
        """Why the mark fits no sample of a job, in words; "" if that depends on the sample."""
        return ""

    def misfit(self, sample: SampleRecord, marking: Marking) -> str:
        """Why the mark does not fit this sample, in words that many samples share; "" if it fits.

        What does not fit is left unmarked and counted in the manifest. Asked before `apply_content`
        for any stage, unless `misfit_of_job` says it for all.
        """
        return ""

    def apply_content(
        self, samples: Sequence[SampleRecord], marking: Marking
    ) -> Sequence[SampleRecord]:
        """The samples with the mark in their outputs. Only of marks of that stage."""
        return samples

    def tags(self, sample: SampleRecord, marking: Marking) -> Sequence[Tag]:
        """Metadata that the medium writes into the file, together with that of other marks."""
        return ()

    def apply_bytes(
        self, samples: Sequence[SampleRecord], data: Sequence[bytes], marking: Marking
    ) -> Sequence[bytes]:
        """The files with the mark. Of marks of the stages `BYTES` and `SIGNATURE`."""
        return data

    @abstractmethod
    def read(self, data: bytes, keys: "Keyring", medium: "Medium") -> Reading:
        """What this mark says about a file of the medium, which may be anybody's and damaged.

        Raises nothing because of the file's content.
        """

    def read_back(
        self, samples: Sequence[SampleRecord], data: Sequence[bytes], marking: Marking
    ) -> Iterator[Reading | None]:
        """What is read of each finished file before it is stored; None: all that is `expected`.

        `samples` are as they were made. A mark overrides this where the bytes of a file of its own
        job tell in less time whether `read` would say what is expected.
        """
        return (self.read(each, marking.keys, marking.medium) for each in data)

    def expected(self, sample: SampleRecord, marking: Marking) -> Mapping[str, JsonValue]:
        """What a reading must say of the finished file, at least. `sample` is as it was made.

        Compared before a sample is stored: one whose marks do not read back fails.
        """
        return {}

    def signed_part(self, data: bytes, medium: "Medium") -> bytes:
        """A file without this signature: the bytes that it was made for. Only of signatures.

        A signature carries a time, so this is what making a sample again is compared with.
        """
        return data

    def token_hook(self, marking: Marking) -> bytes | None:
        """The key by which the sampler of texts draws its tokens; None if the mark has no part in
        it. It goes into `worker.engine.generation.Generation.watermark_key`.
        """
        return None
