"""Models and their versions, found by references: `digits`, `digits:3`, `digits@champion`."""

from typing import Any

from sqlalchemy import String, cast, func, select, update
from sqlalchemy.orm import Session

from db import ledger
from db.errors import NotFound, Refused
from db.leaves import MODEL, MODEL_VERSION
from db.registry import Reference, Registry
from db.session import upsert
from db.tables import Alias, Job, Model, ModelVersion
from db.tombstones import not_removed, refuse

CHAMPION = "champion"
LATEST = "latest"

_registry = Registry(
    "model",
    Model,
    ModelVersion,
    ModelVersion.model_id,
    MODEL,
    MODEL_VERSION,
    visible=not_removed(ModelVersion.id),
)
all_versions = _registry.all_versions
get = _registry.get
listing = _registry.listing
names = _registry.names
numbers = _registry.numbers
select_all = _registry.select_all
version = _registry.version
versions = _registry.versions


def add_version(
    session: Session,
    *,
    name: str,
    family: str,
    params: dict[str, Any],
    files: dict[str, Any],
    weights_sha256: str,
    metrics: dict[str, Any],
    shape: dict[str, Any] | None = None,
    **origin: str | int | None,
) -> ModelVersion:
    """Add the next version of model `name`, creating the model if needed.

    `files` maps file names to `{"key", "sha256", "size"}`; `shape` is that of `config.json`.
    `origin` may hold parent_id, dataset_version_id, job_id, made_by, and format, the number of the
    family's format that `params` are of. Raises `Refused` if the model is of another family.
    """
    model = _registry.lock(session, name, family=family)
    if model.family != family:
        raise Refused(
            f"model {name!r} is of family {model.family!r}, not {family!r}",
            remedy="choose another name",
        )
    return _registry.add(
        session,
        model,
        params=params,
        files=files,
        weights_sha256=weights_sha256,
        metrics=metrics,
        shape=shape,
        **origin,
    )


def set_marks(session: Session, name: str, marks: dict[str, Any] | None) -> None:
    """Set the profile of marks that a model's samples get by default; None: the installation's."""
    model = get(session, name)
    model.marks = marks
    session.flush()
    ledger.enter(session, MODEL, model)


def marks_of(session: Session, name: str) -> dict[str, Any] | None:
    """The profile of marks that a model has of its own; None also if there is no such model yet."""
    return session.scalar(select(Model.marks).where(Model.name == name))


def resolve(session: Session, reference: str) -> tuple[Model, ModelVersion]:
    """The model and version that a reference means now.

    A bare `name` means its champion, or else its newest version; `name:3`, `name@alias` and
    `name@latest` say which. Raises `NotFound` with the nearest spelling, or `Gone`.
    """
    name, number, alias = Reference.parse(reference)
    model = get(session, name)
    if number is not None:
        return model, _registry.numbered(session, model, number)
    if alias is None:
        alias = CHAMPION if session.get(Alias, (model.id, CHAMPION)) else LATEST
    if alias == LATEST:
        return model, versions(session, model)[-1]
    found = session.get(Alias, (model.id, alias))
    if found is None:
        known = [*aliases(session, model), LATEST]
        raise NotFound.unknown("alias", alias, known, of=f"model {name!r}")
    return model, version(session, found.version_id)


def resolve_removed(session: Session, reference: str) -> tuple[Model, ModelVersion]:
    """As `resolve`, also of a version that was removed: what came of it may still be somewhere."""
    name, number, _ = Reference.parse(reference)
    named = select(Model, ModelVersion).join(ModelVersion, ModelVersion.model_id == Model.id)
    numbered = (Model.name == name, cast(ModelVersion.number, String) == number)
    found = session.execute(named.where(*numbered)).first()
    return (found[0], found[1]) if found else resolve(session, reference)


def check_known(session: Session, name: str) -> None:
    """Raise `NotFound` with the nearest spelling, unless a model or any job has this name."""
    if session.scalar(select(Job.id).where(Job.model == name).limit(1)) is not None:
        return
    known = set(names(session))
    if name not in known:  # a model that jobs are to train is not one yet
        named = session.scalars(select(Job.model).where(Job.model.is_not(None)).distinct())
        raise NotFound.unknown("model", name, known.union(filter(None, named)))


def names_file(session: Session, key: str) -> bool:
    """Whether a version of any model has the file under this key of the store."""
    named = cast(ModelVersion.files, String).contains(key, autoescape=True)
    files = select(ModelVersion.files).where(named)
    return any(f["key"] == key for each in session.scalars(files) for f in each.values())


def newest(session: Session, limit: int) -> list[tuple[Model, ModelVersion]]:
    """The newest versions of all models, each with its model, the newest first."""
    statement = select(Model, ModelVersion).join(Model, Model.id == ModelVersion.model_id)
    statement = statement.where(not_removed(ModelVersion.id))
    rows = session.execute(statement.order_by(ModelVersion.id.desc()).limit(limit))
    return [(row[0], row[1]) for row in rows]


def count_versions(session: Session) -> int:
    """How many versions all models have."""
    counted = select(func.count()).select_from(ModelVersion).where(not_removed(ModelVersion.id))
    return session.scalar(counted) or 0


def set_shape(session: Session, version_id: str, shape: dict[str, Any]) -> None:
    """Note the shape of a version that was made before versions kept it."""
    session.execute(update(ModelVersion).where(ModelVersion.id == version_id).values(shape=shape))


def aliases(session: Session, model: Model) -> dict[str, int]:
    """A model's aliases, each with the number of its version."""
    statement = select(Alias.alias, ModelVersion.number).join(
        ModelVersion, ModelVersion.id == Alias.version_id
    )
    rows = session.execute(statement.where(Alias.model_id == model.id).order_by(Alias.alias))
    return {row[0]: row[1] for row in rows}


def set_alias(session: Session, model: Model, alias: str, version: ModelVersion) -> None:
    """Point `alias` at a version of `model`, moving it if it exists. Raises `Refused` or `Gone`."""
    if version.model_id != model.id:
        raise Refused(f"version {version.id} is not a version of model {model.name!r}")
    if alias == LATEST or alias.isdigit():
        raise Refused(
            f"{alias!r} cannot be an alias: it already means a version",
            remedy="choose another name",
        )
    refuse(session, version.id)
    row = {"model_id": model.id, "alias": alias, "version_id": version.id}
    upsert(session, Alias, [row])
    session.expire_all()
