"""Models and their versions, found by references: `digits`, `digits:3`, `digits@champion`."""

from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db.errors import NotFound, Refused, unknown
from db.session import clock, insert_new, upsert
from db.tables import Alias, Model, ModelVersion, new_id

CHAMPION = "champion"
LATEST = "latest"


def add_version(
    session: Session,
    *,
    name: str,
    family: str,
    params: dict[str, Any],
    files: dict[str, Any],
    weights_sha256: str,
    metrics: dict[str, Any],
    **origin: str | None,
) -> ModelVersion:
    """Add the next version of model `name`, which is created if there is none.

    `files` maps file names to `{"key", "sha256", "size"}`. `origin` may hold parent_id,
    dataset_version_id and job_id. Raises `Refused` if the model is of another family.
    """
    model = _locked(session, name, family)
    numbers = select(func.max(ModelVersion.number)).where(ModelVersion.model_id == model.id)
    version = ModelVersion(
        id=new_id(),
        model_id=model.id,
        number=(session.scalar(numbers) or 0) + 1,
        params=params,
        files=files,
        weights_sha256=weights_sha256,
        metrics=metrics,
        created_at=clock(session),
        **origin,
    )
    session.add(version)
    session.flush()
    return version


def get(session: Session, name: str) -> Model:
    """The model of this name. Raises `NotFound` with the nearest spelling."""
    found: Model | None = session.scalar(select(Model).where(Model.name == name))
    if found is None:
        raise NotFound(unknown("model", name, session.scalars(select(Model.name))))
    return found


def resolve(session: Session, reference: str) -> tuple[Model, ModelVersion]:
    """What a reference means now.

    `name` is its champion, or else its newest version; `name:3`, `name@alias` and `name@latest` say
    which. Raises `NotFound` with the nearest spelling.
    """
    name, at, alias = reference.partition("@")
    if at:
        model = get(session, name)
        return model, _by_alias(session, model, alias)
    name, colon, number = reference.partition(":")
    model = get(session, name)
    if colon:
        return model, _by_number(session, model, number)
    champion = session.get(Alias, (model.id, CHAMPION))
    return model, _by_alias(session, model, CHAMPION if champion else LATEST)


def version(session: Session, version_id: str) -> ModelVersion:
    """The version with this id. Raises `NotFound`."""
    found = session.get(ModelVersion, version_id)
    if found is None:
        raise NotFound(f"no model version {version_id!r}")
    return found


def listing(session: Session) -> list[Model]:
    """Every model, by name."""
    return list(session.scalars(select(Model).order_by(Model.name)))


def versions(session: Session, model: Model) -> list[ModelVersion]:
    """A model's versions, oldest first."""
    statement = select(ModelVersion).where(ModelVersion.model_id == model.id)
    return list(session.scalars(statement.order_by(ModelVersion.number)))


def aliases(session: Session, model: Model) -> dict[str, int]:
    """A model's aliases and the version number that each stands for."""
    statement = select(Alias.alias, ModelVersion.number).join(
        ModelVersion, ModelVersion.id == Alias.version_id
    )
    rows = session.execute(statement.where(Alias.model_id == model.id).order_by(Alias.alias))
    return {row[0]: row[1] for row in rows}


def set_alias(session: Session, model: Model, alias: str, version: ModelVersion) -> None:
    """Let `alias` stand for a version of `model`; it moves if it stood for another."""
    if version.model_id != model.id:
        raise Refused(f"version {version.id} is not one of model {model.name!r}")
    if alias == LATEST or alias.isdigit():
        raise Refused(f"{alias!r} cannot be an alias: it already means a version")
    row = {"model_id": model.id, "alias": alias, "version_id": version.id}
    upsert(session, Alias, [row])
    session.expire_all()


def _locked(session: Session, name: str, family: str) -> Model:
    """The model's row, locked: whoever holds it gives out the next number."""
    row = {"id": new_id(), "name": name, "family": family, "created_at": clock(session)}
    insert_new(session, Model, [row])
    model: Model = session.scalars(
        select(Model).where(Model.name == name).with_for_update(key_share=True)
    ).one()
    if model.family != family:
        raise Refused(
            f"model {name!r} is of family {model.family!r}, not {family!r}: choose another name"
        )
    return model


def _by_number(session: Session, model: Model, number: str) -> ModelVersion:
    for candidate in versions(session, model):
        if str(candidate.number) == number:
            return candidate
    known = [str(candidate.number) for candidate in versions(session, model)]
    raise NotFound(f"model {model.name!r}: " + unknown("version", number, known))


def _by_alias(session: Session, model: Model, alias: str) -> ModelVersion:
    if alias == LATEST:
        return versions(session, model)[-1]
    found = session.get(Alias, (model.id, alias))
    if found is None:
        known = [*aliases(session, model), LATEST]
        raise NotFound(f"model {model.name!r}: " + unknown("alias", alias, known))
    return version(session, found.version_id)
