"""Files that are made of samples, and of another kind: with those of their marks that fit them.

A mark is made anew and read back, with the job's profile and keys, as when the sample was made.
What a file cannot carry is counted with the reason; nothing is left out in silence. It fails
closed: without the keys there are no files.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from db import jobs
from db.errors import Refused
from scheduler.results.marks_file import Group
from worker.mark_profile import Profile
from worker.marks import find_mark
from worker.marks.apply import Marker
from worker.marks.base import Marking
from worker.marks.fingerprint import MARK as FINGERPRINT
from worker.marks.record import MARK as RECORD
from worker.media import find_medium
from worker.media.base import Conversion, Medium
from worker.media.samples.containers import SampleRecord
from worker.media.samples.record import SharedRecord
from worker.services import Services
from worker.services.marking import marking_of
from worker.specs import Generate, parse_params, parse_recorded

NO_MEDIUM = "{} files cannot carry it"


class Converter:
    """Makes the files of a conversion of one job's samples, and groups them by their marks."""

    def __init__(
        self, job_id: str, form: Conversion, marking: Marking | None, unfit: Mapping[str, str]
    ) -> None:
        """`unfit` has, by mark, why the files cannot carry it."""
        self._job_id, self._form, self._marking, self._unfit = job_id, form, marking, unfit
        self._last: Group | None = None
        self.groups = defaultdict[Group, set[int]](set)

    def contents(self, data: bytes, record: bytes) -> Mapping[str, bytes]:
        """The files of a sample, by suffix; none of one that lacks what the form needs.

        Raises `MarkFailed`, `Refused` for a key that was revoked, and `WrongKey` for one that
        cannot be had here.
        """
        if self._marking is None:
            self._last = self._group({})
            return self._form.contents(data, record)
        return self._marked(data, self._marking)

    def written(self, sample: int) -> None:
        """Count the files that `contents` gave last, which are those of a sample."""
        if self._last is not None:
            self.groups[self._last].add(sample)

    def _marked(self, data: bytes, marking: Marking) -> Mapping[str, bytes]:
        form = self._form
        assert form.convert and form.shape  # noqa: S101 PT018 - for mypy
        found = form.convert(data)
        if found is None:
            return {}
        output, record = found
        sample = SampleRecord(record["index"], output, SharedRecord(record))
        marker = Marker(marking)
        [file] = marker.encode([sample], form.shape)
        self._last = self._group(marker.data)
        return {form.suffixes[0]: file}

    def _group(self, did: Mapping[str, Any]) -> Group:
        """The group of a file of which the marks did this."""
        lacks = {name: why for name, each in did.items() for why in each["not_applied"]}
        return Group(
            self._job_id,
            self._form.suffixes[0],
            tuple(sorted(name for name, each in did.items() if each["applied"])),
            tuple(sorted((lacks | dict(self._unfit)).items())),
        )


def converter_of(services: Services, job_id: str, form: Conversion) -> Converter:
    """What converts the samples of a job."""
    with services.database.read() as session:
        spec = parse_recorded(jobs.get(session, job_id, kept=True).spec)
    if not isinstance(spec, Generate) or spec.marks is None:
        return Converter(job_id, form, None, {})
    # copies have no fingerprints, but those of what they are copies of
    wanted = [name for name in spec.marks.marks if name != FINGERPRINT.name]
    if form.shape is None:
        [suffix, *_] = form.suffixes
        unfit = {each: NO_MEDIUM.format(suffix) for each in wanted if each != RECORD.name}
        return Converter(job_id, form, None, unfit)
    unfit = _unfit(spec.marks, wanted, find_medium(form.shape.media))
    profile = spec.marks.model_copy(
        update={"marks": tuple(each for each in wanted if each not in unfit)}
    )
    marking = marking_of(services, spec.model_copy(update={"marks": profile}), form.shape)
    return Converter(job_id, form, marking, unfit)


def _unfit(profile: Profile, names: Iterable[str], medium: Medium) -> dict[str, str]:
    """The marks whose settings samples of this medium cannot have, and why."""
    found = {}
    for name in names:
        mark = find_mark(name)
        told = parse_params(mark.schema, profile.settings.get(name, {}), what=f"mark {name}")
        try:
            mark.check(told, medium)
        except Refused as error:
            found[name] = error.message
    return found
