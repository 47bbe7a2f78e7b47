"""Which marks a job's samples carry, as a spec holds it: a profile, without any secret.

Asked for by its name alone; when a job is enqueued, `worker.marks.profiles` completes it with its
marks, all their settings and the ids of the keys in use, so that the job means the same tomorrow.
"""

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue

MAX_MARKS = 50
PROFILE_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"


class Profile(BaseModel):
    """The marks of samples, in no order, and their settings by mark. Frozen.

    Without marks, it names a profile that has not been looked up yet. `keys` has the id of the key
    for each purpose that a mark needs: never the key.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=PROFILE_NAME)
    marks: tuple[str, ...] = Field((), max_length=MAX_MARKS)
    settings: dict[str, dict[str, JsonValue]] = Field(default_factory=dict)
    keys: dict[str, str] = Field(default_factory=dict)


def _from_name(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


Marks = Annotated[Profile, BeforeValidator(_from_name)]
