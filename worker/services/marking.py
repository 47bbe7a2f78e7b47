"""The marks that a generate job asks for: pinned when it is enqueued, and read by its workers."""

from sqlalchemy.orm import Session

from db import lineage, models
from db.errors import NotFound
from db.registry import Reference
from worker.data.dataset import Shape
from worker.mark_profile import NONE, Profile
from worker.marks.base import Marking
from worker.marks.profiles import complete, looked_up, purposes
from worker.media.base import Medium
from worker.services.connections import Services
from worker.specs import Generate, Spec

UNMARKED = Profile(name=NONE)
SIGNATURE = "c2pa"  # the mark that states data


def pin_marks(
    services: Services, session: Session, spec: Generate, medium: Medium
) -> Profile | None:
    """The job's profile, else its model's, else the installation's; None if that has no marks.

    It is complete: with every setting, and the ids of the keys that its marks need. Raises
    `Refused`, also for a key of another purpose or one that was revoked since, or `NotFound` for
    one that has not been made yet.
    """
    profile = complete(_asked(services, session, spec), medium)
    if profile is None:
        return None
    return _with_keys(services, session, _with_data(session, spec, profile))


def pin_marks_early(services: Services, session: Session, spec: Generate) -> Profile:
    """The profile of a job that waits, with the keys that its marks have now.

    The job itself is pinned later and by another process, whose tenant, default and files may be
    others; `pin_marks` then adds what follows from the model. Raises as that does.
    """
    return _with_keys(services, session, looked_up(_asked(services, session, spec)))


def refuse_revoked(services: Services, session: Session, spec: Spec) -> None:
    """Raise `Refused` if the spec of a job that waits names a key that was revoked since."""
    if isinstance(spec, Generate) and spec.marks and spec.marks.keys:
        _with_keys(services, session, spec.marks)


def _with_keys(services: Services, session: Session, profile: Profile) -> Profile:
    """The profile with the keys that its marks need: those that it names, else the current ones."""
    needed = sorted(purposes(profile))
    if not needed:
        return profile
    from worker.keys.keyring import load_keyring  # noqa: PLC0415 - loads cryptography

    ring = load_keyring(session, services.settings).use(profile.keys)
    keys, missing = {}, []
    for purpose in needed:
        try:
            keys[purpose] = ring.current(purpose).id
        except NotFound as error:
            missing.append(error)
    if missing:
        raise NotFound(
            "; ".join(each.message for each in missing),
            remedy="; ".join(str(each.remedy) for each in missing),
        )
    return profile.model_copy(update={"keys": keys})


def _with_data(session: Session, spec: Generate, profile: Profile) -> Profile:
    """The profile whose signature states the data that the model and its parents learnt from."""
    stated = profile.settings.get(SIGNATURE)
    if stated is None or stated["trained_on"]:
        return profile
    version = lineage.named(session, spec.model).version
    learnt = [each.dataset for each in lineage.ancestors(session, version) if each.dataset]
    settings = {**profile.settings, SIGNATURE: stated | {"trained_on": list(dict.fromkeys(learnt))}}
    return profile.model_copy(update={"settings": settings})


def _asked(services: Services, session: Session, spec: Generate) -> Profile:
    """The profile that the job asks for, else its model's, else the installation's."""
    if spec.marks:
        return spec.marks
    own = models.marks_of(session, Reference.parse(spec.model).name)
    return Profile(name=services.settings.marks) if own is None else Profile.model_validate(own)


def with_same_marks(spec: Spec) -> Spec:
    """The spec of a job on record, to run it again: with its marks, or without any."""
    if not isinstance(spec, Generate):
        return spec
    return spec.model_copy(update={"marks": spec.marks or UNMARKED})


def marking_of(services: Services, spec: Generate, shape: Shape) -> Marking | None:
    """What the samples of a pinned spec share; None if they are not marked."""
    if spec.marks is None:
        return None
    from worker.keys.keyring import Keyring, load_keyring  # noqa: PLC0415 - as above

    keys = Keyring(())
    if spec.marks.keys:
        with services.database.read() as session:
            keys = load_keyring(session, services.settings).use(spec.marks.keys)
    return Marking(spec.marks, keys, shape)
