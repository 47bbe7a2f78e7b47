"""Two versions side by side: their numbers under one protocol, the differences, the pictures."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw
from sqlalchemy.orm import Session

from db import artifacts, datasets, evaluations, models
from db.errors import GenmillError, NotFound
from db.tables import Evaluation, ModelVersion
from worker.families import find_family
from worker.gate.differences import difference, training_noise
from worker.gate.items import Items
from worker.gate.policy import policy_for
from worker.metrics.catalogue import CLOSER, HIGHER, METRICS
from worker.services import Services
from worker.services.evaluations import read_items

RESAMPLES, CONFIDENCE = 200, 0.95
ITEMS, REPORT = "items.npz", "report.png"
HEADING, GAP = 28, 12  # pixels

Document = dict[str, Any]


@dataclass(frozen=True)
class Side:
    """One of the two versions, with its evaluation."""

    name: str
    evaluation: Evaluation
    items: Items


@dataclass(frozen=True)
class Comparison:
    """Two versions under one protocol."""

    first: Side
    second: Side

    @property
    def data(self) -> Document:
        """The comparison as plain data."""
        return {
            "first": self.first.name,
            "second": self.second.name,
            "protocol": self.first.evaluation.protocol,
            "numbers": list(self.rows()),
        }

    def rows(self) -> Iterator[Document]:
        """Each metric of both; `change` is the second's value less the first's.

        Where items can be resampled, `low` to `high` is its interval, and `better` the version
        that is proved better. The same resamples give both values.
        """
        ours, theirs = self.first.items, self.second.items
        for metric in sorted(set(ours.numbers) & set(theirs.numbers) & METRICS.keys()):
            number = ours.numbers[metric]
            one, other = (float(each.numbers[metric]["value"]) for each in (ours, theirs))
            yield {
                "metric": metric,
                "first": one,
                "second": other,
                "change": other - one,
                **self._interval(metric),
                "real": number.get("real"),
                "wanted": number["better"],
                "n": number.get("n"),
            }

    def _interval(self, metric: str) -> Document:
        try:
            found = difference(
                metric, self.second.items, self.first.items, resamples=RESAMPLES, seed=0
            )
        except GenmillError:  # a metric that these items do not have
            return {"low": None, "high": None, "better": None}
        low, high = found.bounds(CONFIDENCE)
        better = self.second.name if low > 0 else self.first.name if high < 0 else None
        if METRICS[metric].better == CLOSER:  # the interval is that of another number
            return {"low": None, "high": None, "better": better}
        bounds = (low, high) if METRICS[metric].better == HIGHER else (-high, -low)
        return {"low": bounds[0], "high": bounds[1], "better": better}


def compare(services: Services, first: str, second: str, dataset: str | None) -> Comparison:
    """Compare the newest evaluations that two versions have of one protocol.

    Raises `NotFound` with what to run if they have none.
    """
    with services.database.read() as session:
        one, other = models.resolve(session, first), models.resolve(session, second)
        names = tuple(f"{model.name}:{version.number}" for model, version in (one, other))
        data_id = datasets.resolve(session, dataset)[1].id if dataset else None
        both = _of_one_protocol(session, one[1], other[1], data_id)
    if both is None:
        raise NotFound(
            f"{names[0]} and {names[1]} have no evaluations of one protocol",
            remedy=f"run `genmill enqueue evaluate {names[0]} --dataset {dataset or 'D'} "
            f"--against {names[1]} --wait`",
        )
    sides = [
        Side(name, each, read_items(services, each)) for name, each in zip(names, both, strict=True)
    ]
    return Comparison(*sides)


def training_sd(
    services: Services, references: Sequence[str], policy: dict[str, Any], dataset: str | None
) -> tuple[str, float]:
    """The primary metric of a policy, and its noise between versions of other training seeds.

    Raises `NotFound` for a version that was not evaluated, and `Refused` for fewer than three.
    """
    with services.database.read() as session:
        data_id = datasets.resolve(session, dataset)[1].id if dataset else None
        found = [models.resolve(session, each) for each in references]
        measured = [evaluations.newest(session, version.id, data_id) for _, version in found]
    for reference, each in zip(references, measured, strict=True):
        if each is None:
            raise NotFound(
                f"{reference} has not been evaluated",
                remedy=f"run `genmill enqueue evaluate {reference} --dataset D --wait`",
            )
    rules = policy_for(find_family(found[0][0].family).media, policy)
    items = [read_items(services, each) for each in measured if each is not None]
    noise = training_noise(rules.primary.metric, items, resamples=rules.resamples, seed=rules.seed)
    return rules.primary.metric, noise


def write_sheet(services: Services, comparison: Comparison, path: Path) -> bool:
    """Draw both reports' pictures side by side; False if retention has removed one."""
    pictures = []
    for side in (comparison.first, comparison.second):
        key = _report_key(services, side.evaluation)
        if key is None:
            return False
        with services.store.open(key) as file:
            pictures.append((side.name, Image.open(file).convert("RGB")))
    width = sum(picture.width for _, picture in pictures) + GAP
    height = max(picture.height for _, picture in pictures) + HEADING
    sheet = Image.new("RGB", (width, height), "white")
    left = 0
    for name, picture in pictures:
        ImageDraw.Draw(sheet).text((left + GAP, 4), name, fill="black", font_size=18)
        sheet.paste(picture, (left, HEADING))
        left += picture.width + GAP
    sheet.save(path)
    return True


def _of_one_protocol(
    session: Session, first: ModelVersion, second: ModelVersion, data_id: str | None
) -> tuple[Evaluation, Evaluation] | None:
    for ours in evaluations.of_version(session, first.id):
        theirs = evaluations.find(session, second.id, ours.protocol_sha256)
        if theirs is not None and data_id in {None, ours.dataset_version_id}:
            return ours, theirs
    return None


def _report_key(services: Services, evaluation: Evaluation) -> str | None:
    """The key of the picture that was stored beside an evaluation's items."""
    with services.database.read() as session:
        stored = artifacts.of_job(session, evaluation.job_id, kind="report")
    keys = {each.name: each.key for each in stored}
    mine = [name for name, key in keys.items() if key == evaluation.items_key]
    return keys.get(mine[0].removesuffix(ITEMS) + REPORT) if mine else None
