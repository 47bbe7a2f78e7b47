"""Training of every family, from the request to a version's files.

It knows no family and no queue. If only steps are limited, a run is reproducible: N steps equal k
steps, an interruption and N-k more, bit for bit on the CPU if the number of threads is fixed.
"""

from dataclasses import dataclass
from pathlib import Path

from db.errors import Cancelled, Draining, NonFinite, NothingToKeep
from worker.engine.background import NetworkCopy
from worker.engine.curves import draw_curves
from worker.engine.loop import LOWER_RATE, Loop
from worker.engine.losses import not_finite
from worker.engine.monitor import Monitor
from worker.engine.previews import Report, last_page
from worker.engine.run import Training, build_run, require_memory
from worker.engine.weights import save
from worker.networks.version_folder import CONFIG

__all__ = ["Report", "Trained", "Training", "train"]


@dataclass(frozen=True)
class Trained:
    """A finished run: the version's `files`, all in `folder`, and `reports` for people.

    `metrics` holds the validation losses of the version's weights and their step (`kept_step`),
    `steps`, `seconds`, `samples_per_second`, the measured speed of generation, and `row_bytes`, the
    memory that one row of a forward pass takes; and that the run `ended_early`, if it did.
    """

    folder: Path
    files: list[Path]
    metrics: dict[str, float]
    steps: int
    reports: list[Report]


def train(training: Training, monitor: Monitor) -> Trained:
    """Train until the budget is spent, or the training `ends_early`.

    Raises `NonFinite` if a loss or weight is NaN or infinite, `Collapsed` if roll-backs did not
    help, `BadCheckpoint` if the run cannot resume from it and `NothingToKeep` if it ends before its
    first step, and lets the monitor's `Stopped` through: on `Draining` and `Cancelled` it stores a
    checkpoint first, without waiting for a preview or a validation.
    """
    run = build_run(training)
    loop = Loop(run, monitor, require_memory(run, monitor))
    try:
        loop.finish_validations()
        while not loop.over:
            loop.step()
            loop.after_step()
        if early := loop.ended_early:
            _end_early(loop)
        return _finish(loop, early=early)
    except Draining:
        loop.drain()
        raise
    except Cancelled:
        loop.leave()
        raise
    finally:
        loop.background.close()


def _end_early(loop: Loop) -> None:
    """Store a checkpoint, from which another worker finishes if this one dies."""
    if not loop.state.step:
        raise NothingToKeep("told to end early before its first step: there is nothing to keep")
    loop.monitor.log(f"ending early after step {loop.state.step}, and keeping the best weights")
    loop.checkpoint()


def _finish(loop: Loop, *, early: bool) -> Trained:
    """Restore the best weights, validate them, and write the version and the reports."""
    loop.background.wait()
    loop.read_losses()
    loop.judge(loop.network, loop.state.step)
    loop.replaced = True
    if loop.network.keeps_best and loop.run.parts.best:
        loop.network.load_state_dict(loop.run.parts.best)
    loop.network.end_training()
    # `end_training` may have changed the network's form
    loop.beside = NetworkCopy(loop.network, loop.training.device, loop.background)
    pages = list[tuple[Report, float]]()
    loop.beside.run(
        lambda network: last_page(network, loop.training, after_step=loop.report_to_the_end),
        step=loop.state.step,
        then=pages.append,
    )
    # no checkpoint from here on: it would hold other weights
    loop.state.best_losses = losses = loop.mean_losses(
        loop.network, after_batch=loop.report_to_the_end, whole=True
    )
    if reason := not_finite(losses, loop.state.step):
        raise NonFinite(reason, remedy=LOWER_RATE)
    folder, curves = loop.run.version, loop.training.folder / "losses.png"
    save(loop.network, folder, family=loop.training.family)
    draw_curves(loop.state.curves, curves)
    loop.background.wait()
    ((report, speed),) = pages
    reports = [report, (curves.name, curves, "image/png")]
    first = [folder / loop.network.weights_file, folder / CONFIG]
    files = first + sorted(path for path in folder.iterdir() if path not in first)
    metrics = _metrics(loop, speed)
    if early:
        metrics["ended_early"] = True
    return Trained(folder, files, metrics, loop.state.step, reports)


def _metrics(loop: Loop, samples_per_second: float) -> dict[str, float]:
    return loop.state.best_losses | {
        "steps": loop.state.step,
        "kept_step": loop.state.best_step,
        "seconds": round(loop.state.elapsed_s, 3),
        "samples_per_second": round(samples_per_second, 3),
        "row_bytes": loop.footprint.row_bytes,
    }
