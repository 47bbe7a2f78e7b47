"""Evaluate jobs: the numbers of a version, unless it has them; nothing is measured twice."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from db import evaluations, jobs, models, shards
from db.evaluations import NewEvaluation
from db.jobs import JobBrief
from db.tables import DatasetVersion, Evaluation, ModelVersion
from worker.data.dataset import LocalDataset
from worker.engine.stages import LOADING, STORING, Stages
from worker.evaluation.asking import asked_for, count_of
from worker.evaluation.evaluate import Evaluated, evaluate, needs_judge
from worker.evaluation.protocol import Protocol
from worker.evaluation.request import Curves, Request
from worker.evaluation.stages import Stage
from worker.networks.params import SamplingParams
from worker.services.pinned import PinnedEvaluation
from worker.shards.context import ShardResult, WorkerContext
from worker.shards.judges import FoundJudge, find_judge
from worker.shards.lease import Lease, hang_checks_paused
from worker.specs import JudgeFolder, parse_params

JUDGE_SHARE = 0.3  # of the time of a first evaluation


@dataclass(frozen=True)
class Terms:
    """What an evaluation is asked for: its protocol but for what a worker finds out."""

    dataset: str  # NAME:VERSION
    split: str
    count: int | None
    seed: int
    sampling: Mapping[str, Any]  # the family's settings, complete
    judge: JudgeFolder | str | None = None  # as `find_judge` takes it

    @classmethod
    def of(cls, protocol: Mapping[str, Any]) -> "Terms":
        """Those of a recorded protocol, to measure another version in the same way."""
        names = ("dataset", "split", "count", "seed", "sampling", "judge")
        return cls(**{name: protocol[name] for name in names})


@dataclass(frozen=True)
class Ensured:
    """A version's evaluation: recorded already, or to be recorded by the caller's commit."""

    evaluation: Evaluation | NewEvaluation
    result: ShardResult  # what the commit records: nothing if it was recorded already


def evaluate_job(
    context: WorkerContext, job: JobBrief, pinned: PinnedEvaluation, lease: Lease, folder: Path
) -> ShardResult:
    """Evaluate the version, and the one to compare with; the caller commits the results."""
    spec = pinned.spec
    sampling = pinned.params.model_dump(mode="json")
    terms = Terms(spec.dataset, spec.split, spec.count, spec.seed, sampling, spec.judge)
    names = [name for name in dict.fromkeys((spec.model, spec.against)) if name]
    ensured = [
        ensure_evaluated(
            context,
            lease,
            folder / f"evaluation-{place}",
            name,
            terms,
            stage=Stage(lease, name, 100 * place / len(names), 100 * (place + 1) / len(names)),
            prefix="" if name == spec.model else f"{name.replace(':', '-')}-",
        )
        for place, name in enumerate(names)
    ]
    lease.progress(100, 100, "%")
    results = [each.result for each in ensured]
    return ShardResult(
        [artifact for result in results for artifact in result.artifacts],
        [write for result in results for write in result.writes],
    )


def ensure_evaluated(
    context: WorkerContext,
    lease: Lease,
    folder: Path,
    name: str,
    terms: Terms,
    *,
    stage: Stage,
    prefix: str = "",
) -> Ensured:
    """Measure version `name`, NAME:VERSION, on these terms, unless that has been recorded.

    `folder` is made and worked in; `prefix` begins the names of the artifacts.
    """
    folder.mkdir()
    work = _Work(context, lease, folder, name, terms)
    with hang_checks_paused([lease]), Stages(lease.stages).under_way(LOADING):
        work.prepare()
    judge = work.judge(stage.part("judge", 0, JUDGE_SHARE))
    protocol = work.protocol(judge)
    with context.services.database.read() as session:
        known = evaluations.find(session, work.version.id, protocol.sha256)
    if known is not None:
        return work.recorded(known)
    request = work.request(protocol, judge)
    measured = context.networks.make_room(
        partial(evaluate, request, stage.part("measuring", JUDGE_SHARE, 1))
    )
    return work.ensured(protocol, measured, prefix)


def measure_again(
    context: WorkerContext, lease: Lease, folder: Path, name: str, protocol: Mapping[str, Any]
) -> Evaluation | NewEvaluation:
    """Measure a version by a recorded protocol, unless it has been, and record that at once."""
    stage, terms = Stage(lease, name, 0, 99), Terms.of(protocol)
    prefix = f"{folder.name}-"
    made = ensure_evaluated(context, lease, folder, name, terms, stage=stage, prefix=prefix)
    context.services.store.flush()

    def record(session: Session) -> None:
        for artifact in made.result.artifacts:
            shards.put_artifact(session, lease.claim, artifact)
        for write in made.result.writes:
            write(session)

    context.services.database.transact(record)
    return made.evaluation


class _Work:
    """One version that is evaluated on given terms."""

    def __init__(
        self, context: WorkerContext, lease: Lease, folder: Path, name: str, terms: Terms
    ) -> None:
        self.context, self.lease, self.folder = context, lease, folder
        self.name, self.terms = name, terms
        self.version: ModelVersion
        self.dataset_version: DatasetVersion
        self.dataset: LocalDataset

    def prepare(self) -> None:
        """Look the version and the data up, and download and read them."""
        with self.context.services.database.read() as session:
            self.version = models.resolve(session, self.name)[1]
            self.curves = _curves(session, self.version)
        self.dataset_version, self.dataset = self.context.dataset(self.terms.dataset)
        self.loaded = self.context.load(self.version)
        self.files = self.context.files(self.version)

    def judge(self, stage: Stage) -> FoundJudge | None:
        """The judge of the dataset version; None where no medium needs one."""
        if not needs_judge(self.loaded.family):
            return None
        return find_judge(
            self.context,
            self.lease,
            self.folder,
            stage,
            version=self.dataset_version,
            dataset=self.dataset,
            asked=self.terms.judge,
        )

    def protocol(self, judge: FoundJudge | None) -> Protocol:
        """The complete protocol."""
        terms, loaded = self.terms, self.loaded
        return Protocol(
            dataset=terms.dataset,
            dataset_sha256=self.dataset_version.manifest_sha256,
            split=terms.split,
            count=count_of(terms.count, loaded.family, self.dataset, terms.split),
            seed=terms.seed,
            judge=judge.name if judge else None,
            asked=asked_for(loaded.family, loaded.network.shape, self.dataset, terms.split),
            sampling=dict(terms.sampling),
            precision=self.context.services.settings.precision,
        )

    def request(self, protocol: Protocol, judge: FoundJudge | None) -> Request:
        """What the evaluation room needs."""
        (self.folder / "run").mkdir()
        family = self.loaded.family
        sampling: SamplingParams = parse_params(
            family.sampling, self.terms.sampling, what=f"sampling from {family.name}"
        )
        return Request(
            self.name,
            family,
            self.loaded.network,
            sampling,
            self.dataset,
            protocol,
            self.folder / "run",
            self.files.path,
            judge=judge.network if judge else None,
            judge_metrics=judge.metrics if judge else {},
            curves=self.curves,
        )

    def recorded(self, known: Evaluation) -> Ensured:
        """An evaluation that was recorded before."""
        self.lease.log(f"{self.name} was evaluated by job {known.job_id} under this protocol")
        return Ensured(known, ShardResult([]))

    def ensured(self, protocol: Protocol, measured: Evaluated, prefix: str) -> Ensured:
        """Store the files of an evaluation that was made now."""
        with Stages(self.lease.stages).under_way(STORING):
            put = [
                self.lease.put("report", f"{prefix}{path.name}", path, media_type)
                for path, media_type in measured.files
            ]
        items = put[0]
        new = NewEvaluation(
            version_id=self.version.id,
            dataset_version_id=self.dataset_version.id,
            job_id=self.lease.claim.job_id,
            protocol=protocol.data,
            protocol_sha256=protocol.sha256,
            numbers=measured.numbers,
            items_key=items.key,
            items_sha256=items.sha256,
        )
        for name, reason in measured.left_out.items():
            self.lease.log(f"{name} is left out: {reason}")
        return Ensured(new, ShardResult(put, [partial(evaluations.add, new=new)]))


def _curves(session: Session, version: ModelVersion) -> Curves:
    """The curves of the job that trained a version; none once retention has deleted them."""
    found: dict[str, list[tuple[int, float]]] = {}
    for point in jobs.points(session, version.job_id) if version.job_id else ():
        found.setdefault(point.name, []).append((point.step, point.value))
    return found
