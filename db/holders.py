"""What names a job or a version, so that it cannot be removed.

Each rule yields what is held, the id of what holds it, and a phrase that says so. What is removed
together holds nothing.
"""

from collections.abc import Callable, Collection, Container, Iterator, Sequence, Set
from typing import Any, NamedTuple

from sqlalchemy import Select, and_, func, or_, select
from sqlalchemy.orm import Session

from db import published
from db.publications import THERE
from db.states import FINAL
from db.tables import (
    Alias,
    Dataset,
    DatasetVersion,
    Evaluation,
    Job,
    Judge,
    Model,
    ModelVersion,
    Promotion,
    Publication,
    Schedule,
    ScheduleRun,
    Target,
)
from db.tombstones import not_removed

Held = dict[str, list[str]]  # by the id of what is held: phrases of what holds it


class _Hold(NamedTuple):
    thing: str
    by: str
    phrase: str


_Rule = Callable[[Session, Collection[str]], Iterator[_Hold]]


def of_jobs(session: Session, ids: Collection[str], leaving: Set[str], *, kept: bool) -> Held:
    """What holds these jobs, apart from jobs that are `leaving`; a job that is held stays.

    A job whose artifacts are `kept` stays on record for all that name it: it only has to have
    ended.
    """
    rules = _OF_KEPT_JOBS if kept else _OF_JOBS
    held = Held()
    while True:
        found = _held(session, ids, leaving - held.keys() if held else leaving, rules)
        if found.keys() <= held.keys():
            return found
        held = found


def of_versions(session: Session, model: Model, versions: Sequence[ModelVersion]) -> Held:
    """What names these versions of a model: aliases, publications and unfinished jobs."""
    held = _held(session, [each.id for each in versions], (), [_aliases, _published_files])
    references = {f"{model.name}:{each.number}": each.id for each in versions}
    for job in session.execute(_unfinished_naming(model.name, references)):
        named = {job.model, job.against}
        of = {references[each] for each in named & references.keys()} or set(references.values())
        for version_id in of:
            held.setdefault(version_id, []).append(_unfinished_phrase(job))
    return held


def of_files(session: Session, versions: Sequence[ModelVersion]) -> Held:
    """What was made from these versions, and may need their files."""
    ids = [each.id for each in versions]
    return _held(session, ids, ids, [_children])


def of_content(session: Session, versions: Sequence[DatasetVersion]) -> Held:
    """What names the content of these dataset versions: model versions and evaluations."""
    return _held(session, [each.id for each in versions], (), [_trained, _measured])


def _held(
    session: Session, ids: Collection[str], leaving: Container[str], rules: Sequence[_Rule]
) -> Held:
    found: Held = {}
    for rule in rules:
        for hold in rule(session, ids):
            if hold.by not in leaving:
                found.setdefault(hold.thing, []).append(hold.phrase)
    return {thing: list(dict.fromkeys(phrases)) for thing, phrases in found.items()}


def _rows(session: Session, statement: Any, phrase: str) -> Iterator[_Hold]:
    """A hold for each row: what is held, what holds it, and what the phrase is about."""
    for row in session.execute(statement):
        yield _Hold(row[0], row[1], phrase.format(*row))


def _unended(session: Session, ids: Collection[str]) -> Iterator[_Hold]:
    mine = select(Job.id, Job.status).where(Job.id.in_(ids), Job.status.not_in(FINAL))
    return _rows(session, mine, "it is {1}: cancel it first")


def _retries(session: Session, ids: Collection[str]) -> Iterator[_Hold]:
    others = select(Job.retry_of, Job.id).where(Job.retry_of.in_(ids))
    return _rows(session, others, "job {1} is a retry of it")


def _followers(session: Session, ids: Collection[str]) -> Iterator[_Hold]:
    others = select(Job.after_id, Job.id).where(Job.after_id.in_(ids))
    return _rows(session, others, "job {1} came after it in its chain")


def _made(session: Session, ids: Collection[str]) -> Iterator[_Hold]:
    made = select(ModelVersion.job_id, ModelVersion.id, Model.name, ModelVersion.number)
    made = made.join(Model, Model.id == ModelVersion.model_id)
    visible = (ModelVersion.job_id.in_(ids), not_removed(ModelVersion.id))
    return _rows(session, made.where(*visible), "it made the model {2}:{3}")


def _evaluations(session: Session, ids: Collection[str]) -> Iterator[_Hold]:
    columns = (Evaluation.job_id, Evaluation.id, Model.name, ModelVersion.number)
    made = select(*columns).join(ModelVersion, ModelVersion.id == Evaluation.version_id)
    made = made.join(Model, Model.id == ModelVersion.model_id)
    return _rows(session, made.where(Evaluation.job_id.in_(ids)), "it measured the model {2}:{3}")


def _judges(session: Session, ids: Collection[str]) -> Iterator[_Hold]:
    """A judge by which nothing on record was measured, nor is being, goes with its job."""
    made = select(Judge, Dataset.name, DatasetVersion.number)
    made = made.join(DatasetVersion, DatasetVersion.id == Judge.dataset_version_id)
    made = made.join(Dataset, Dataset.id == DatasetVersion.dataset_id)
    for judge, name, number in session.execute(made.where(Judge.job_id.in_(ids))):
        data = f"{name}:{number}"
        if use := _use_of(session, judge, data):
            phrase = f"it trained the judge of the dataset {data}, by which {use}"
            yield _Hold(judge.job_id, judge.id, phrase)


def _use_of(session: Session, judge: Judge, data: str) -> str | None:
    """What is, or is to be, measured by a judge of the dataset version `data`; None if nothing."""
    measured = select(Model.name, ModelVersion.number)
    measured = measured.join(ModelVersion, ModelVersion.model_id == Model.id)
    measured = measured.join(Evaluation, Evaluation.version_id == ModelVersion.id)
    protocol = f"{judge.recipe}:{judge.sha256}"
    mine = measured.where(Evaluation.protocol["judge"].as_string() == protocol)
    if found := session.execute(mine.limit(1)).first():
        return f"the model {found[0]}:{found[1]} was measured"
    evaluates = and_(Job.kind == "evaluate", Job.spec["dataset"].as_string() == data)
    orders = Job.spec["accept", "judge"].as_string() == judge.sha256
    due = select(Job.id).where(Job.status.not_in(FINAL), or_(evaluates, orders))
    job_id = session.scalar(due.limit(1))
    return None if job_id is None else f"job {job_id} is to measure"


def _promotions(session: Session, ids: Collection[str]) -> Iterator[_Hold]:
    columns = (Promotion.job_id, Promotion.id, Model.name, Promotion.alias)
    made = select(*columns).join(Model, Model.id == Promotion.model_id)
    left = select(ModelVersion.id).where(
        ModelVersion.model_id == Model.id, not_removed(ModelVersion.id)
    )
    phrase = "it decided about the alias {2}@{3}, whose history names it"
    return _rows(session, made.where(Promotion.job_id.in_(ids), left.exists()), phrase)


def _last_runs(session: Session, ids: Collection[str]) -> Iterator[_Hold]:
    """The data of a schedule's last run are those that new data are compared with."""
    for schedule in session.scalars(select(Schedule).where(Schedule.only_if_new_data)):
        runs = select(ScheduleRun.job_id).join(Job, Job.id == ScheduleRun.job_id)
        mine = runs.where(ScheduleRun.schedule_id == schedule.id).order_by(ScheduleRun.due.desc())
        last = session.scalar(mine.limit(1))
        if last in ids:
            phrase = f"the schedule {schedule.name} compares new data with those of this run"
            yield _Hold(str(last), schedule.id, phrase)


def _published_samples(session: Session, ids: Collection[str]) -> Iterator[_Hold]:
    """Whoever sees a sample there may ask where it comes from."""
    columns = (Publication.job_id, Target.id, Target.name, func.count())
    there = select(*columns).join(Target, Target.id == Publication.target_id)
    mine = there.where(Publication.job_id.in_(ids), Publication.state.in_(THERE))
    phrase = (
        "{3} of its samples are at the target {2} (`genmill publish {0} --target {2} --take-down`)"
    )
    return _rows(session, mine.group_by(*columns[:3]), phrase)


def _to_be_published(session: Session, ids: Collection[str]) -> Iterator[_Hold]:
    for each in published.going(session, take_down=False):
        if each.reference in ids:
            does = f"job {each.by_job_id}, which is {each.status}, publishes it at {each.target}"
            yield _Hold(each.reference, each.by_job_id, does)


def _published_files(session: Session, ids: Collection[str]) -> Iterator[_Hold]:
    columns = (Publication.version_id, Target.id, Target.name, Model.name, ModelVersion.number)
    there = select(*columns).join(Target, Target.id == Publication.target_id)
    there = there.join(ModelVersion, ModelVersion.id == Publication.version_id)
    there = there.join(Model, Model.id == ModelVersion.model_id)
    mine = there.where(Publication.version_id.in_(ids), Publication.state.in_(THERE)).distinct()
    phrase = "it is at the target {2} (`genmill publish {3}:{4} --target {2} --take-down`)"
    return _rows(session, mine, phrase)


def _aliases(session: Session, ids: Collection[str]) -> Iterator[_Hold]:
    mine = select(Alias.version_id, Alias.alias, Model.name)
    mine = mine.join(Model, Model.id == Alias.model_id).where(Alias.version_id.in_(ids))
    phrase = "the alias {1} means it (`genmill model alias {2} --as {1} --remove`)"
    return _rows(session, mine, phrase)


def _children(session: Session, ids: Collection[str]) -> Iterator[_Hold]:
    columns = (ModelVersion.parent_id, ModelVersion.id, Model.name, ModelVersion.number)
    made = select(*columns).join(Model, Model.id == ModelVersion.model_id)
    visible = (ModelVersion.parent_id.in_(ids), not_removed(ModelVersion.id))
    return _rows(session, made.where(*visible), "{2}:{3} was tuned from it")


def _trained(session: Session, ids: Collection[str]) -> Iterator[_Hold]:
    columns = (ModelVersion.dataset_version_id, ModelVersion.id, Model.name, ModelVersion.number)
    made = select(*columns).join(Model, Model.id == ModelVersion.model_id)
    visible = (ModelVersion.dataset_version_id.in_(ids), not_removed(ModelVersion.id))
    return _rows(session, made.where(*visible), "the model {2}:{3} was trained on it")


def _measured(session: Session, ids: Collection[str]) -> Iterator[_Hold]:
    columns = (Evaluation.dataset_version_id, Evaluation.id, Model.name, ModelVersion.number)
    made = select(*columns).join(ModelVersion, ModelVersion.id == Evaluation.version_id)
    made = made.join(Model, Model.id == ModelVersion.model_id)
    mine = made.where(Evaluation.dataset_version_id.in_(ids))
    return _rows(session, mine, "the model {2}:{3} was measured against it")


def _unfinished_naming(name: str, references: Collection[str]) -> Select[Any]:
    """Unfinished jobs that start from one of a model's versions, or compare with it.

    What a bare name or an alias comes to mean for a job that waits is not known yet.
    """
    model, against = (Job.spec[field].as_string() for field in ("model", "against"))
    named = [
        or_(field.in_([name, *references]), field.startswith(f"{name}@", autoescape=True))
        for field in (model, against)
    ]
    starts = and_(Job.kind != "train", named[0])
    columns = (Job.id, Job.status, model.label("model"), against.label("against"))
    return select(*columns).where(Job.status.not_in(FINAL), or_(starts, named[1]))


def _unfinished_phrase(job: Any) -> str:
    return f"job {job.id}, which is {job.status}, uses it"


_OF_KEPT_JOBS: list[_Rule] = [_unended, _published_samples, _to_be_published]
_OF_JOBS: list[_Rule] = [
    *_OF_KEPT_JOBS,
    *(_retries, _followers, _made, _evaluations, _judges, _promotions, _last_runs),
]
