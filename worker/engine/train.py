"""Training of every family, from the request to a version's files.

It knows no family and no queue. If only steps are limited, a run is reproducible: N steps equal k
steps, an interruption and N-k more, bit for bit on the CPU if the number of threads is fixed.
"""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from db.errors import Cancelled, Draining, NonFinite, NothingToKeep
from worker.engine.background import NetworkCopy
from worker.engine.curves import draw_curves
from worker.engine.loop import LOWER_RATE, Loop
from worker.engine.losses import not_finite
from worker.engine.monitor import Monitor
from worker.engine.previews import LastPage, Report, last_page, micro_batches
from worker.engine.run import Training, build_run, require_memory
from worker.engine.stages import LOADING, MEASURING, STORING, TRAINING, VALIDATING, Laps, Stages
from worker.engine.weights import save
from worker.media import find_medium
from worker.networks.network import Network
from worker.networks.version_folder import CONFIG

__all__ = ["Report", "Trained", "Training", "train"]


@dataclass(frozen=True)
class Trained:
    """A finished run: the version's `files`, all in `folder`, and `reports` for people.

    `metrics` holds the validation losses of the version's weights and their step (`kept_step`),
    `steps`, `epochs`, `seconds`, `samples_per_second`, the measured speed of generation, and
    `row_bytes`, the memory that one row of a forward pass takes; and that the run `ended_early`, if
    it did. `stage_seconds` are those outside the budget, by stage, and `warnings` say that the run
    was too short, and what is wrong with the samples of the last page.
    """

    folder: Path
    files: list[Path]
    metrics: dict[str, float]
    steps: int
    reports: list[Report]
    stage_seconds: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def train(training: Training, monitor: Monitor) -> Trained:
    """Train until the budget is spent, or the training `ends_early`.

    Raises `NonFinite` if a loss or weight is NaN or infinite, `Collapsed` if roll-backs did not
    help, `BadCheckpoint` if the run cannot resume from it and `NothingToKeep` if it ends before its
    first step, and lets the monitor's `Stopped` through: on `Draining` and `Cancelled` it stores a
    checkpoint first, without waiting for a preview or a validation.
    """
    laps = Laps()
    with Stages(monitor.stages).under_way(LOADING):
        run = build_run(training)
        loop = Loop(run, monitor, require_memory(run, monitor))
    laps.end(LOADING)
    try:
        loop.finish_validations()
        with loop.stages.under_way(TRAINING):
            while not loop.over:
                loop.step()
                loop.after_step()
        laps.end(TRAINING)
        return _finish(loop, laps)
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


def _finish(loop: Loop, laps: Laps) -> Trained:
    """Restore the best weights, validate them, and write the version and the reports."""
    early = loop.ended_early
    if early:
        _end_early(loop)
    _keep_weights(loop)
    laps.end(VALIDATING)
    pages = list[LastPage]()
    loop.beside.run(partial(_make_page, loop), step=loop.state.step, then=pages.append)
    laps.end(MEASURING)
    # no checkpoint from here on: it would hold other weights
    loop.state.best_losses = losses = loop.mean_losses(
        loop.network, after_batch=loop.report_to_the_end, whole=True
    )
    if reason := not_finite(losses, loop.state.step):
        raise NonFinite(reason, remedy=LOWER_RATE)
    laps.end(VALIDATING)
    folder, curves = loop.run.version, loop.training.folder / "losses.png"
    save(loop.network, folder, family=loop.training.family)
    draw_curves(loop.state.curves, curves)
    laps.end(STORING)
    loop.background.wait()
    (page,) = pages
    warnings = [*_shortness(loop), *_faults(loop, page)]
    laps.end(MEASURING)
    reports = [page.report, (curves.name, curves, "image/png")]
    first = [folder / loop.network.weights_file, folder / CONFIG]
    files = first + sorted(path for path in folder.iterdir() if path not in first)
    outside = {name: took for name, took in laps.seconds.items() if name != TRAINING}
    metrics = _metrics(loop, page.samples_per_second)
    if early:
        metrics["ended_early"] = True
    return Trained(folder, files, metrics, loop.state.step, reports, outside, warnings)


def _keep_weights(loop: Loop) -> None:
    """Validate the last weights, and put those that are kept into the network, finished."""
    state, run = loop.state, loop.run
    epochs = f"{run.epochs(state.step):.2g} epochs"
    why = "it ended early" if loop.ended_early else "the budget is spent"
    loop.monitor.log(f"{why} after {state.elapsed_s:.1f} s: {state.step:,} steps, {epochs}")
    loop.background.wait()
    loop.read_losses()
    loop.judge(loop.network, state.step)
    loop.replaced = True
    if loop.network.keeps_best and run.parts.best:
        loop.network.load_state_dict(run.parts.best)
        loop.monitor.log(f"the version keeps the weights of step {state.best_step:,}")
    loop.network.end_training()
    # `end_training` may have changed the network's form
    loop.beside = NetworkCopy(loop.network, loop.training.device, loop.background)


def _make_page(loop: Loop, network: Network) -> LastPage:
    with loop.stages.under_way(MEASURING, micro_batches(network), "batches") as advance:
        return last_page(
            network, loop.training, after_step=loop.report_to_the_end, after_rows=advance
        )


def _shortness(loop: Loop) -> list[str]:
    """That the run was too short, if it began from nothing."""
    training, steps = loop.training, loop.state.step
    epochs = loop.run.epochs(steps)
    if training.parent is not None or not training.family.is_short(steps, epochs):
        return []
    told = f"the training was short, of {steps:,} steps and {epochs:.2g} epochs"
    return [f"{told}; {training.family.least}"]


def _faults(loop: Loop, page: LastPage) -> list[str]:
    """What is plainly wrong with the samples of the page."""
    training, shape = loop.training, loop.network.shape
    tuned = training.parent is not None
    try:
        return find_medium(shape.media).faults(page.samples, training.dataset, shape, tuned=tuned)
    except Exception as error:  # a training must not fail by a look at its samples
        loop.monitor.log(f"its samples were not looked at: {error}", level="warning")
        return []


def _metrics(loop: Loop, samples_per_second: float) -> dict[str, float]:
    return loop.state.best_losses | {
        "steps": loop.state.step,
        "epochs": round(loop.run.epochs(loop.state.step), 4),
        "kept_step": loop.state.best_step,
        "seconds": round(loop.state.elapsed_s, 3),
        "samples_per_second": round(samples_per_second, 3),
        "row_bytes": loop.footprint.row_bytes,
    }
