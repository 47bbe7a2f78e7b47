"""A job's curves and evaluations as a TensorBoard event file.

The times follow from the job's own, so that equal records give equal bytes.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from db.errors import Refused
from db.tables import Evaluation, Job, Point
from worker.extras import needed_for
from worker.files import atomic_write, disk_errors, inside


def write_events(
    job: Job, points: Sequence[Point], evaluations: Sequence[Evaluation], folder: Path
) -> Path:
    """Write an event file into `folder`, which TensorBoard reads with `--logdir`; return its path.

    A curve is a scalar of its own name; an evaluation's numbers are scalars such as
    `evaluation/fid`, with `/low`, `/high` and `/real` beside them. Raises `Refused` if there is
    nothing to write.
    """
    if not points and not evaluations:
        raise Refused(
            f"job {job.id} has neither curves nor evaluations: a {job.kind} job that is "
            f"{job.status}",
            remedy="give a train, finetune or evaluate job that has begun",
        )
    record_writer, event_type, summary_type = _tensorboard()
    began = (job.started_at or job.created_at).timestamp()
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        path = inside(folder, f"events.out.tfevents.{int(began):010d}.{job.id}")
        with atomic_write(path) as file:
            writer = record_writer(file)
            version = event_type(wall_time=began, file_version="brain.Event:2")
            writer.write(version.SerializeToString())
            for tag, step, value, at in (*_curves(job, points), *_numbers(evaluations)):
                value_type = summary_type.Value(tag=tag, simple_value=value)
                summary = summary_type(value=[value_type])
                event = event_type(wall_time=at, step=step, summary=summary)
                writer.write(event.SerializeToString())
    return path


def _tensorboard() -> tuple[Any, Any, Any]:
    """TensorBoard's writer and messages, which take a second to load."""
    with needed_for("an event file"):
        from tensorboard.compat.proto.event_pb2 import Event  # noqa: PLC0415
        from tensorboard.compat.proto.summary_pb2 import Summary  # noqa: PLC0415
        from tensorboard.summary.writer.record_writer import RecordWriter  # noqa: PLC0415
    return RecordWriter, Event, Summary


Scalar = tuple[str, int, float, float]  # tag, step, value, time in seconds


def _curves(job: Job, points: Sequence[Point]) -> Iterator[Scalar]:
    """Each point, at the time that its step had if all took equally long."""
    began = job.started_at or job.created_at
    span_s = _span_s(began, job.finished_at)
    last = max((point.step for point in points), default=0) or 1
    for point in points:
        at = began.timestamp() + span_s * point.step / last
        yield point.name, point.step, point.value, at


def _span_s(began: datetime, ended: datetime | None) -> float:
    return (ended - began).total_seconds() if ended else 0.0


def _numbers(evaluations: Sequence[Evaluation]) -> Iterator[Scalar]:
    for step, evaluation in enumerate(evaluations):
        at = evaluation.created_at.timestamp()
        numbers: Mapping[str, Mapping[str, Any]] = evaluation.numbers
        for name, number in sorted(numbers.items()):
            for part in ("value", "low", "high", "real"):
                value = number.get(part)
                if value is not None:
                    tag = f"evaluation/{name}" + ("" if part == "value" else f"/{part}")
                    yield tag, step, float(value), at
