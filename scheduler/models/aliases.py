"""Aliases of models: set, removed, promoted by the gate, rolled back; and their history."""

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy.orm import Session

from db import models, promotions
from db.errors import NotFound, Refused
from db.promotions import Reason
from db.readable import Unreadable, read_each
from db.registry import Reference
from db.tables import Model, ModelVersion
from scheduler.output.documents import Document, promotion_document
from scheduler.submission.pinning import pin
from scheduler.submission.withdrawn_data import warn_of_job, warn_of_version
from worker.identity import who
from worker.services import Services
from worker.services.evidence import gather
from worker.services.pinned import PinnedPromotion
from worker.services.promotion import Judgement, judge, record
from worker.specs import Spec, check_alias

Target = Callable[[Session], tuple[Model, ModelVersion | None]]


def set_alias(services: Services, reference: str, alias: str, *, why: str | None) -> Document:
    """Give an alias to a version, without asking the gate. Returns the entry of the history."""
    check_alias(alias)
    return _move(services, lambda s: models.resolve(s, reference), alias, promotions.SET, why=why)


def removed_alias(reference: str, alias: str | None) -> str:
    """The alias that is to be removed, as in `digits@tested`. Raises `Refused` if none is named."""
    name, _, named = Reference.parse(reference)
    removed = alias or named
    if removed is None:
        raise Refused("which alias is to be removed?", remedy=f"write {name}@ALIAS, or --as ALIAS")
    return f"{name}@{removed}"


def remove_alias(
    services: Services, reference: str, alias: str | None, *, why: str | None
) -> Document:
    """Remove an alias, by default that of the reference, as in `digits@tested`.

    Raises `NotFound` if no version has it, and `Refused` if another has it than is named.
    """
    number = Reference.parse(reference).number
    name, _, removed = removed_alias(reference, alias).partition("@")

    def target(session: Session) -> tuple[Model, None]:
        model = models.get(session, name)
        holder = promotions.holder(session, model, removed)
        if holder is None:
            known = models.aliases(session, model)
            raise NotFound.unknown("alias", removed, known, of=f"model {name!r}")
        if number not in {None, str(holder.number)}:
            raise Refused(f"{name}@{removed} is {name}:{holder.number}, not {reference}")
        return model, None

    return _move(services, target, removed, promotions.REMOVED, why=why)


def listing(session: Session, reference: str | None) -> tuple[list[Document], list[Unreadable]]:
    """The aliases of a model, or of all: `model`, `alias` and the number of its `version`."""
    statement = models.select_all()
    if reference:
        model = models.get(session, Reference.parse(reference).name)
        statement = statement.where(Model.id == model.id)
    return read_each(
        session,
        statement,
        lambda rows: [
            {"model": model.name, "alias": alias, "version": number}
            for (model,) in rows
            for alias, number in models.aliases(session, model).items()
        ],
        called=Model.name,
    )


def roll_back(services: Services, name: str, alias: str, *, why: str | None) -> Document:
    """Give an alias back to the version that had it before. Raises `Refused` if there is none."""

    def target(session: Session) -> tuple[Model, ModelVersion]:
        model = models.get(session, name)
        return model, promotions.previous_holder(session, model, alias)

    return _move(services, target, alias, promotions.ROLLED_BACK, why=why)


def promote(services: Services, spec: Spec) -> Judgement:
    """Let the gate decide, and do what it decided. A refusal is in the history too."""
    with services.database.read() as session:
        pinned = pin(services, session, spec)
        warn_of_job(session, pinned)
    assert isinstance(pinned, PinnedPromotion)  # noqa: S101 - for mypy: of this kind
    judged = judge(services, gather(services, pinned, _measure_nothing))
    reason = Reason(who(), pinned.spec.why, judged.data)
    services.database.transact(lambda session: record(session, judged, reason))
    return judged


def history_of(
    session: Session, reference: str, alias: str | None = None
) -> tuple[list[Document], list[Unreadable]]:
    """The history of a model's aliases, newest first."""
    model = models.get(session, Reference.parse(reference).name)
    numbers = models.numbers(session, model)
    found, bad = read_each(
        session,
        promotions.select_history(model, alias),
        lambda rows: [promotion_document(model, entry, numbers) for (entry,) in rows],
    )
    known = models.aliases(session, model)
    if alias is not None and not found and not bad and alias not in known:
        known |= dict.fromkeys((each.alias for each in promotions.history(session, model)), 0)
        raise NotFound.unknown("alias", alias, known, of=f"model {model.name!r}")
    return found[::-1], bad


def _move(
    services: Services, target: Target, alias: str, outcome: str, *, why: str | None
) -> Document:
    def work(session: Session) -> Document:
        model, version = target(session)
        now = promotions.holder(session, model, alias)
        if version is not None and now is not None and now.id == version.id:
            raise Refused(f"{model.name}:{version.number} has the alias {alias!r} already")
        if version is not None:
            warn_of_version(session, version)
        entry = promotions.move(
            session,
            model,
            alias,
            version,
            expected=now.id if now else None,
            outcome=outcome,
            reason=Reason(who(), why),
        )
        return promotion_document(model, entry, models.numbers(session, model))

    return services.database.transact(work)


def _measure_nothing(name: str, protocol: Mapping[str, Any]) -> None:
    """Only a worker can evaluate; the gate refuses then, and says what to run."""
