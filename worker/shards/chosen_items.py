"""Which items of a publish job meet its rules: samples that are made already are judged again."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from db.errors import BadInput
from worker.acceptance import Acceptance
from worker.data.dataset import Shape
from worker.engine.generation import Sample
from worker.evaluation import judge
from worker.media import find_medium
from worker.publishing.base import ItemRefused
from worker.services.pinned import PinnedPublication
from worker.services.publishable import Publishable, Source
from worker.services.verdicts import PASSED
from worker.shards.context import WorkerContext
from worker.shards.lease import Lease, hang_checks_paused
from worker.shards.sample_rules import Look, look_of


def chosen(
    context: WorkerContext,
    pinned: PinnedPublication,
    source: Source,
    items: Iterable[Publishable],
    lease: Lease,
    folder: Path,
) -> Iterator[Publishable]:
    """Those of the items that meet the job's rules, if it has any; damaged ones stay among them.

    Publishing refuses those by name.
    """
    rules: Acceptance | None = pinned.spec.accept
    if rules is None:
        yield from items
        return
    shape, waiting = Shape.from_json(pinned.version.shape or {}), iter(items)
    look = look_of(context, rules, lease, shape, folder)
    while some := list(islice(waiting, judge.ROWS)):
        with hang_checks_paused([lease]):
            meets = _judge(look, source, some, shape)
        lease.raise_if_stopped()
        yield from (item for item in some if meets.get(item.new.item, True))


def _judge(
    look: Look, source: Source, items: Sequence[Publishable], shape: Shape
) -> dict[str, bool]:
    """Whether each item meets the rules; nothing of those that cannot be read."""
    samples, medium = dict[str, Sample](), find_medium(shape.media)
    for item in items:
        try:
            data, record = source.read(item)
            output = medium.decode(data)
        except (ItemRefused, BadInput):
            continue
        label = record.get("label")
        told = str(label) if label is not None else None
        samples[item.new.item] = Sample(item.new.sample or 0, output, told, None, None, 1)
    if not samples:
        return {}
    codes = look(list(samples.values()))[0]
    return {key: bool(code == PASSED) for key, code in zip(samples, codes, strict=True)}
