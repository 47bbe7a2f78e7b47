"""Which marks a job's samples carry, as a spec holds it: a profile, without any secret.

Asked for by its name or file alone; when a job is enqueued, `worker.marks.profiles` completes it
with its marks, all their settings and the ids of the keys in use, so that the job means the same
tomorrow.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue

from worker.complaints import matching

MAX_MARKS = 50
NAMED = "name a profile, or give the path of its file"
NONE = "none"
BUILT_IN: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        NONE: (),
        "eu-art50": (
            *("record", "iptc", "c2pa"),
            *("picture_watermark", "sound_watermark", "text_watermark", "fingerprint"),
        ),
        "cn-gb45438": ("record", "aigc", "visible_label"),
    }
)


class Profile(BaseModel):
    """Some marks and their settings. Frozen.

    Without marks, it is a reference: `name` is that of a profile, or the path of its file. `keys`
    has the id of the key for each purpose that a mark needs: never the key.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, matching(r"[^\0]+", NAMED)]
    marks: tuple[str, ...] = Field((), max_length=MAX_MARKS)
    settings: dict[str, dict[str, JsonValue]] = Field(default_factory=dict)  # by mark
    keys: dict[str, str] = Field(default_factory=dict)  # by purpose


def names_file(reference: str) -> bool:
    """Whether a reference means a file: one that ends in .toml, or a path with folders."""
    return reference.endswith(".toml") or "/" in reference


def _from_name(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


Marks = Annotated[Profile, BeforeValidator(_from_name)]
