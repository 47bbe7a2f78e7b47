"""Specs: what a job asks for. Its `kind` is that of a class here, from `Train` to `Publish`.

A spec without a seed draws one when it is parsed, and keeps it from then on: in the job's row, for
each attempt and for a retry.

Unknown keys and values outside the limits are refused by name, before any row is written. Each
family declares its own parameters (`worker.families`). `worker.services.pinned` says what a job's
row keeps of a spec, once its names are versions and its parameters complete.
"""

import re
import secrets
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    Tag,
    TypeAdapter,
    ValidationError,
)
from pydantic_core import PydanticCustomError

from db.errors import NotSupportedHere, Refused
from worker.acceptance import Rules
from worker.complaints import explain, matching
from worker.conversations import Conversation
from worker.mark_profile import Marks

MAX_SAMPLES = 100_000_000
MAX_PROMPTS = 100_000
MAX_PROMPT_CHARACTERS = 20_000
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"

REFERENCE_PATTERN = NAME_PATTERN.removesuffix("$") + r"([:@][A-Za-z0-9._-]{1,40})?$"

ALIAS_PATTERN = r"^[A-Za-z][A-Za-z0-9._-]{0,39}$"
ALIAS_RULE = "use 1 to 40 letters, digits, '.', '_' and '-', beginning with a letter"
NAME_RULE = "use 1 to 100 letters, digits, '.', '_' and '-', beginning with a letter or digit"


Name = Annotated[str, matching(NAME_PATTERN, NAME_RULE)]
_REFERENCE_RULE = "use NAME, NAME:VERSION or NAME@ALIAS"
Reference = Annotated[str, matching(REFERENCE_PATTERN, _REFERENCE_RULE)]
# PostgreSQL's JSON holds no NUL
Text = Annotated[str, matching(r"[^\0]*", "remove the NUL characters")]
Key = Annotated[str, matching(r"[^\0\ud800-\udfff]{1,200}", "use 1 to 200 characters, no NUL")]
SEED_BITS = 53  # of a seed that is drawn: JSON readers with numbers of 64 bits keep it


def fresh_seed() -> int:
    """A seed that no other request has, as far as chance allows."""
    return secrets.randbits(SEED_BITS)


Seed = Annotated[
    int, Field(default_factory=fresh_seed, ge=0, lt=2**63, description="the random seed")
]


class Params(BaseModel):
    """Base of everything that a user can set. Frozen; refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


P = TypeVar("P", bound=Params)


def _refuse_long(value: Conversation) -> Conversation:
    if len(value.json) > MAX_PROMPT_CHARACTERS:
        raise PydanticCustomError(
            "long_messages",
            "the messages have {size} characters as JSON: at most {most} are allowed",
            {"size": f"{len(value.json):,}", "most": f"{MAX_PROMPT_CHARACTERS:,}"},
        )
    return value


def _prompt_form(value: object) -> str:
    return "messages" if isinstance(value, list | Conversation) else "text"


class Prompt(Params):
    """One line of a prompts file: a text, or the messages of a conversation."""

    prompt: Annotated[
        Annotated[Text, Field(max_length=MAX_PROMPT_CHARACTERS), Tag("text")]
        | Annotated[Conversation, AfterValidator(_refuse_long), Tag("messages")],
        Discriminator(_prompt_form),
    ]
    custom_id: Text | None = Field(None, max_length=200)


class _Request(Params):
    """`format`: of the family, that the settings are of; None: today's, as users give them."""

    format: int | None = Field(None, ge=1, exclude_if=lambda number: number is None)


class _Training(_Request):
    dataset: Reference
    params: dict[str, JsonValue] = Field(
        default_factory=dict, description="the family's parameters"
    )
    seed: Seed
    max_steps: int | None = Field(None, ge=1, le=100_000_000)
    max_seconds: float | None = Field(None, gt=0, le=30 * 86_400, allow_inf_nan=False)


class Train(_Training):
    """Train a new version of model `model` from scratch."""

    kind: Literal["train"] = "train"
    family: str
    model: Name


class Finetune(_Training):
    """Train a version further; the result is a new version whose parent is `model`."""

    kind: Literal["finetune"] = "finetune"
    model: Reference


class Generate(_Request):
    """Make `count` samples. Sample i depends on the weights, these settings, `seed` and i alone.

    With `prompts`, sample i takes prompt i modulo their number. With neither `label` nor `prompts`,
    a conditional model takes label i modulo the number of labels. With `dataset`, samples are made
    from its images.
    """

    kind: Literal["generate"] = "generate"
    model: Reference
    count: int = Field(ge=1, le=MAX_SAMPLES)
    seed: Seed
    label: str | None = Field(None, max_length=200)
    dataset: Reference | None = None
    prompts: list[Prompt] = Field(default_factory=list, max_length=MAX_PROMPTS)
    params: dict[str, JsonValue] = Field(
        default_factory=dict, description="the family's sampling settings"
    )
    accept: Rules | None = Field(
        None,
        description="make samples until `count` meet these rules",
        exclude_if=lambda rules: rules is None,  # so that most specs stay as short as they were
    )
    marks: Marks | None = Field(
        None,
        description="what the samples carry about themselves: a profile",
        exclude_if=lambda marks: marks is None,  # as above
    )


class JudgeFolder(Params):
    """A folder of an image model, on which a judge is built; with the digest of its files."""

    folder: Text = Field(min_length=1, max_length=4000)
    sha256: Annotated[str, matching("[0-9a-f]{64}", "use 64 hexadecimal digits")] | None = None


def _folder_alone(value: object) -> object:
    return {"folder": value} if isinstance(value, str) else value


class Evaluate(_Request):
    """Measure a version against the data of one split, by the family's default sampling settings.

    Its seed is fixed unless another is given, because only equal protocols can be compared.
    """

    kind: Literal["evaluate"] = "evaluate"
    model: Reference
    dataset: Reference
    split: Literal["validation", "test"] = "test"
    count: int | None = Field(
        None, ge=1, le=1_000_000, description="samples to make; by default as many as the split has"
    )
    seed: int = Field(0, ge=0, lt=2**63)
    against: Reference | None = Field(
        None, description="a version to compare with: measured too, unless it has been"
    )
    judge: Annotated[JudgeFolder, BeforeValidator(_folder_alone)] | None = Field(
        None,
        description="an image model that looks at the pictures, in place of the dataset's own",
        exclude_if=lambda judge: judge is None,  # so that most specs stay as short as they were
    )
    params: dict[str, JsonValue] = Field(
        default_factory=dict, description="the family's sampling settings"
    )


class Promote(_Request):
    """Let `alias` name a version, if the gate finds it better than the one that has the alias.

    The gate reads the version's newest evaluation, on `dataset` if that is given.
    """

    kind: Literal["promote"] = "promote"
    model: Reference
    alias: Annotated[str, matching(ALIAS_PATTERN, ALIAS_RULE)] = "champion"
    dataset: Reference | None = None
    policy: dict[str, JsonValue] = Field(
        default_factory=dict, description="the policy's file as data; empty: the medium's own"
    )
    force: bool = False
    why: Text | None = Field(None, max_length=2000)


class Publish(_Request):
    """Publish samples of a generate job, or a model version, to a target; or take them down again.

    Of a job with rules, only the accepted samples are published, and with `accept` only those of
    them that meet these rules too.
    """

    kind: Literal["publish"] = "publish"
    target: Name
    job: Key | None = Field(
        None,
        description="the generate job; `before`: the last one before this in its chain; without "
        "one, the files of the model version are published",
    )
    model: Annotated[str, matching(f"({REFERENCE_PATTERN[1:-1]})?", _REFERENCE_RULE)] = Field(
        "", description="the model version; that of the job if there is one"
    )
    accept: Rules | None = Field(None, exclude_if=lambda rules: rules is None)
    take_down: bool = False
    expired: bool = Field(
        False, description="take down only what has been there for as long as it may be"
    )
    expires_after_s: float | None = Field(
        None,
        gt=0,
        le=36_500 * 86_400,
        allow_inf_nan=False,
        description="seconds after which it is taken down; default: as the target says",
    )


BEFORE = "before"  # in place of a job's id
Spec = Train | Finetune | Generate | Evaluate | Promote | Publish
KINDS: tuple[str, ...] = tuple(kind.model_fields["kind"].default for kind in get_args(Spec))
_SPEC_ADAPTER: TypeAdapter[Spec] = TypeAdapter(Annotated[Spec, Field(discriminator="kind")])
_KEY_ADAPTER: TypeAdapter[str] = TypeAdapter(Key)
_NEWER = {"extra_forbidden", "union_tag_invalid"}  # complaints about a field or kind unknown here


def parse_spec(data: Mapping[str, Any]) -> Spec:
    """Plain data as a spec. Raises `Refused`, naming each wrong field and its value."""
    try:
        return _SPEC_ADAPTER.validate_python(dict(data))
    except ValidationError as error:
        raise Refused(explain(error, Spec)) from None


def parse_recorded(data: Mapping[str, Any]) -> Spec:
    """The spec that a job's row keeps, whose settings are of format 1 if it does not say of which.

    Raises `NotSupportedHere` for what a newer Genmill has written, `Refused` for what none writes.
    """
    try:
        return _SPEC_ADAPTER.validate_python({"format": 1, **data})
    except ValidationError as error:
        if _NEWER & {item["type"] for item in error.errors(include_url=False)}:
            raise NotSupportedHere(
                f"the job was submitted by a newer genmill: {explain(error, Spec)}",
                remedy="upgrade genmill",
            ) from None
        raise Refused(explain(error, Spec)) from None


def is_seed_given(spec: Spec) -> bool:
    """Whether the request named its seed, or one was drawn for it."""
    return "seed" in spec.model_fields_set


def parse_key(name: str, value: object) -> str:
    """Check an id that a user gives to a job. Raises `Refused`, calling the id `name`."""
    try:
        return _KEY_ADAPTER.validate_python(value, strict=True)
    except ValidationError as error:
        raise Refused(explain(error, whole=name)) from None


def parse_params(schema: type[P], values: Mapping[str, Any], *, what: str) -> P:
    """Check `values` against a family's `schema`. Errors call them `what`, such as "vae"."""
    for key in values:
        if key not in schema.model_fields:
            raise Refused.unknown("parameter", key, schema.model_fields, of=what)
    try:
        return schema.model_validate(dict(values))
    except ValidationError as error:
        raise Refused(f"{what}: {explain(error, schema)}") from None


def check_name(noun: str, name: str) -> None:
    """Raise `Refused` unless `name` can name a `noun`: a dataset, model or schedule."""
    if not re.fullmatch(NAME_PATTERN, name):
        raise Refused(f"{name[:120]!r} cannot be the name of a {noun}", remedy=NAME_RULE)


def check_alias(alias: str) -> None:
    """Raise `Refused` unless `alias` can be one."""
    if not re.fullmatch(ALIAS_PATTERN, alias):
        raise Refused(f"{alias[:120]!r} cannot be an alias", remedy=ALIAS_RULE)
