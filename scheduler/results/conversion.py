"""Files that are made of samples, and of another kind: with those of their marks that fit them.

A mark is made anew and read back, with the job's profile and keys, as when the sample was made.
What a file cannot carry is counted with the reason; nothing is left out in silence. It fails
closed: without the keys there are no files.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from db import jobs
from db.errors import Refused
from worker.mark_profile import Profile
from worker.marks import find_mark
from worker.marks.apply import Marker
from worker.marks.fingerprint import MARK as FINGERPRINT
from worker.marks.record import MARK as RECORD
from worker.media import find_medium
from worker.media.base import Conversion, Medium
from worker.media.samples.containers import SampleRecord
from worker.media.samples.record import SharedRecord
from worker.services import Services
from worker.services.marking import marking_of
from worker.specs import Generate, parse_params, parse_recorded

Marks = dict[str, dict[str, Any]]  # by mark: `applied`, and `not_applied` by the reason

NO_MEDIUM = "{} files cannot carry it"


class Converter:
    """Makes the files of a conversion of one job's samples, and counts their marks."""

    def __init__(
        self, job_id: str, form: Conversion, marker: Marker | None, unfit: Mapping[str, str]
    ) -> None:
        """`unfit` has, by mark, why the files cannot carry it."""
        self._job_id, self._form, self._marker, self._unfit = job_id, form, marker, unfit
        self._count = 0

    def contents(self, data: bytes, record: bytes) -> Mapping[str, bytes]:
        """The files of a sample, by suffix; none of one that lacks what the form needs.

        Raises `MarkFailed`, `Refused` for a key that was revoked, and `WrongKey` for one that
        cannot be had here.
        """
        files = self._form.contents(data, record) if self._marker is None else self._marked(data)
        self._count += bool(files)
        return files

    def _marked(self, data: bytes) -> Mapping[str, bytes]:
        form = self._form
        assert form.convert and form.shape and self._marker  # noqa: S101 PT018 - for mypy
        found = form.convert(data)
        if found is None:
            return {}
        output, record = found
        sample = SampleRecord(record["index"], output, SharedRecord(record))
        [file] = self._marker.encode([sample], form.shape)
        return {form.suffixes[0]: file}

    @property
    def marks(self) -> Marks:
        """What each mark of the job's profile did; empty without a profile."""
        made: Marks = self._marker.data if self._marker else {}
        lacks = {
            name: {"applied": 0, "not_applied": {why: self._count}}
            for name, why in self._unfit.items()
        }
        return dict(sorted((made | lacks).items()))

    @property
    def document(self) -> dict[str, Any]:
        """As plain data, for people who are given the files."""
        return {"job": self._job_id, "files": self._count, "marks": self.marks}


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
    return Converter(job_id, form, Marker(marking) if marking else None, unfit)


def total(converters: Iterable[Converter]) -> Marks:
    """What the marks of several jobs did, together."""
    found: Marks = {}
    for each in converters:
        for name, count in each.marks.items():
            own = found.setdefault(name, {"applied": 0, "not_applied": {}})
            own["applied"] += count["applied"]
            own["not_applied"] = dict(Counter(own["not_applied"]) + Counter(count["not_applied"]))
    return found


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
