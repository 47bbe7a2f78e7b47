"""The profile of marks that a model's samples get where a job asks for none."""

from functools import partial

from db import models
from scheduler.output.documents import Document
from worker.families import find_family
from worker.mark_profile import Profile
from worker.marks.profiles import complete
from worker.media import find_medium
from worker.services import Services


def set_default_marks(services: Services, name: str, reference: str | None) -> None:
    """Set a model's profile, or remove it. Raises `NotFound`, and `Refused` for a wrong profile."""
    with services.database.read() as session:
        medium = find_medium(find_family(models.get(session, name).family).media)
    found = None
    if reference is not None:
        asked = Profile(name=reference)
        found = (complete(asked, medium) or asked).model_dump(mode="json")
    services.database.transact(partial(models.set_marks, name=name, marks=found))


def default_marks(services: Services, name: str) -> Document:
    """A model's own profile, or that of the installation."""
    with services.database.read() as session:
        own = models.get(session, name).marks
    profile = Profile.model_validate(own or {"name": services.settings.marks})
    return {
        "model": name,
        "profile": profile.name,
        "from": "the model" if own else "the installation",
        "marks": list(profile.marks),
        "settings": profile.settings,
    }
