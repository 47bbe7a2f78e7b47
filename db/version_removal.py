"""Removing versions of models and datasets: they are hidden, and give up their files.

Their rows stay, for the history names them, and so do their numbers. Their objects are deleted
afterwards, by whoever finds the tombstone.
"""

from collections.abc import Callable, Collection, Mapping, Sequence

from sqlalchemy import String, cast, delete, or_, select, update
from sqlalchemy.orm import Session

from db import datasets, holders, ledger, models
from db.holders import Held
from db.leaves import MODEL_VERSION
from db.registry import N, Reference, V
from db.retention import collect_again
from db.session import clock
from db.tables import (
    Artifact,
    Dataset,
    DatasetVersion,
    Evaluation,
    Judge,
    Model,
    ModelVersion,
    Shard,
    Tombstone,
)
from db.tombstones import bury, bury_artifacts, find

KEYS_AT_ONCE = 200  # in one statement: SQLite allows expressions that are 1,000 deep


def version_sizes(session: Session, versions: Sequence[ModelVersion]) -> dict[str, dict[str, int]]:
    """The objects that removing model versions will free, with their sizes, by the version's id."""
    shared = _shared_keys(session, versions)
    seen: set[str] = set()
    sizes = {}
    for version in versions:
        own = {f["key"]: f["size"] for f in version.files.values()}
        sizes[version.id] = {key: own[key] for key in own.keys() - shared - seen}
        seen |= own.keys()
    return sizes


def remove_versions(
    session: Session, model: Model, ids: Collection[str], *, who: str, kept: bool
) -> Held:
    """Remove versions of a model, unless any of them is held: then that is returned.

    Their numbers are not used again. Evaluations of a version go with it, and so do its job's
    weights. Where files are `kept`, it is only hidden.
    """
    session.execute(select(Model.id).where(Model.id == model.id).with_for_update(key_share=True))
    mine = select(ModelVersion).where(ModelVersion.id.in_(ids)).order_by(ModelVersion.number)
    versions = session.scalars(mine.execution_options(populate_existing=True)).all()
    if held := version_holders(session, model, versions, kept=kept):
        return held
    sizes = version_sizes(session, versions)
    for version in versions:
        grave = Tombstone(
            id=version.id,
            kind="model",
            name=f"{model.name}:{version.number}",
            about={"family": model.family, "job": version.job_id},
            who=who,
            kept=kept,
        )
        if not kept:
            keys = [file["key"] for file in version.files.values()]
            grave.about = {**(grave.about or {}), "keys": keys}
            grave.size_bytes, grave.sweep_at = sum(sizes[version.id].values()), clock(session)
            _remove_weights(session, version, f"model {grave.name}", who=who)
            session.execute(delete(Evaluation).where(Evaluation.version_id == version.id))
            version.files = {}
        bury(session, grave)
    session.flush()
    ledger.enter(session, MODEL_VERSION, *([] if kept else versions))
    return {}


def version_holders(
    session: Session, model: Model, versions: Sequence[ModelVersion], *, kept: bool
) -> Held:
    """What holds versions of a model that are removed together; where files are `kept`, fewer."""
    held = holders.of_versions(session, model, versions)
    for version_id, phrases in ({} if kept else holders.of_files(session, versions)).items():
        held.setdefault(version_id, []).extend(phrases)
    return held


def removable_versions(session: Session, reference: str) -> tuple[Model, list[ModelVersion]]:
    """The model versions that a reference means: of a bare name all, hidden ones too.

    Raises `NotFound`, or `Gone` for what has been removed.
    """
    return _removable(session, reference, Model, models.all_versions, models.resolve)


def removable_datasets(session: Session, reference: str) -> tuple[Dataset, list[DatasetVersion]]:
    """The dataset versions that a reference means, as `removable_versions` of a model."""
    return _removable(session, reference, Dataset, datasets.all_versions, datasets.resolve)


def _removable(
    session: Session,
    reference: str,
    table: type[N],
    all_versions: Callable[[Session, N], list[V]],
    resolve: Callable[[Session, str], tuple[N, V]],
) -> tuple[N, list[V]]:
    name, number, _ = Reference.parse(reference)
    named = session.scalar(select(table).where(table.name == name))
    found = [
        each
        for each in (all_versions(session, named) if named else ())
        if number in (None, str(each.number)) and _has_objects(session, each)
    ]
    if named is None or not found:
        named, version = resolve(session, reference)  # raises
        found = [version]
    return named, found


def remove_content(
    session: Session, dataset: Dataset, sizes: Mapping[str, int], *, who: str, kept: bool
) -> Held:
    """Hide dataset versions from new jobs, and give up the content of those that nothing names.

    `sizes` are the bytes that each frees, by its id.
    Returns what names the content of the others. Raises `Refused` with the ids of unfinished jobs
    that use one of them.
    """
    versions = datasets.hide(session, dataset, list(sizes))
    named = holders.of_content(session, versions)
    for version in versions:
        grave = Tombstone(
            id=version.id,
            kind="dataset",
            name=f"{dataset.name}:{version.number}",
            about={"manifest_key": version.manifest_key},
            who=who,
            kept=kept or version.id in named,
        )
        if not grave.kept:
            grave.size_bytes, grave.sweep_at = sizes.get(version.id, 0), clock(session)
            _remove_judges(session, version.id)
        bury(session, grave)
    return named


def _shared_keys(session: Session, versions: Sequence[ModelVersion]) -> set[str]:
    """The keys of these versions' files that other versions name too."""
    keys = {file["key"] for each in versions for file in each.files.values()}
    if not keys:
        return set()
    text, ordered = cast(ModelVersion.files, String), sorted(keys)
    others = select(ModelVersion.files).where(
        ModelVersion.id.not_in([each.id for each in versions])
    )
    named = set[str]()
    for start in range(0, len(ordered), KEYS_AT_ONCE):
        some = ordered[start : start + KEYS_AT_ONCE]
        among = or_(*(text.contains(each, autoescape=True) for each in some))
        for files in session.scalars(others.where(among)):
            named.update(file["key"] for file in files.values())
    return keys & named


def _remove_weights(session: Session, version: ModelVersion, name: str, *, who: str) -> None:
    """Mark the weights that a version's job stored for it as removed."""
    if version.job_id is None:
        return
    shards = select(Shard.id).where(Shard.job_id == version.job_id)
    weights = (
        Artifact.shard_id.in_(shards),
        Artifact.kind == "weights",
        Artifact.removed_at.is_(None),
    )
    bury_artifacts(session, weights, name, who=who)
    removed = update(Artifact).where(*weights)
    session.execute(
        removed.values(removed_at=clock(session)).execution_options(synchronize_session=False)
    )
    collect_again(session, [version.job_id])


def _remove_judges(session: Session, dataset_version_id: str) -> None:
    mine = Judge.dataset_version_id == dataset_version_id
    collect_again(session, session.scalars(select(Judge.job_id).where(mine)).all())
    session.execute(delete(Judge).where(mine).execution_options(synchronize_session=False))


def _has_objects(session: Session, version: ModelVersion | DatasetVersion) -> bool:
    """Whether a version is not removed, or only hidden with its objects kept."""
    grave = find(session, version.id)
    if grave is None:
        return isinstance(version, ModelVersion) or version.removed_at is None
    return grave.kept
