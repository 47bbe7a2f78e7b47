"""The training loop of every family: budget, curves, validation, previews, checkpoints.

Knows no family and no queue. A limit in steps alone makes a run exact: N steps at once equal k
steps, an interruption, and N-k more, bit for bit on the CPU.
"""

import math
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch

from db.errors import Collapsed, Draining, NonFinite
from worker.engine.budget import Cadence
from worker.engine.curves import draw_curves
from worker.engine.device import autocast
from worker.engine.generate import Sampler
from worker.engine.memory import footprint, require, to_gb
from worker.engine.monitor import Monitor
from worker.engine.previews import page, time_sampling
from worker.engine.run import Run, Training, begin, derive
from worker.engine.weights import save
from worker.media import find_medium
from worker.networks.network import Clock, Losses
from worker.networks.version_folder import CONFIG

__all__ = ["Report", "Trained", "Training", "train"]

POINTS = 200  # a run's training curve has about as many
VALIDATIONS, PREVIEWS = 10, 4  # in a run, where its parameters do not say
LEAST_STEPS = 50  # between two of either
CHECKPOINT = "checkpoint.safetensors"
ROLL_BACKS = 2  # as many may help; after the next bad judgement the run fails

Report = tuple[str, Path, str]  # name, path, media type


@dataclass(frozen=True)
class Trained:
    """A finished training: the version's `files`, all in `folder`, and `reports` to be looked at.

    `metrics` holds the validation losses of the weights kept, `steps`, `seconds`, `kept_step`,
    `samples_per_second`, the measured speed of generation, and `row_bytes`, the memory that a row
    of a forward takes.
    """

    folder: Path
    files: list[Path]
    metrics: dict[str, float]
    steps: int
    reports: list[Report]


def train(training: Training, monitor: Monitor) -> Trained:
    """Train to the end of the budget.

    Raises `NonFinite` where a loss or a weight is NaN or infinite, `Collapsed` where a run has gone
    bad in spite of its roll-backs, and lets the monitor's `Stopped` through: on `Draining` a
    checkpoint is stored first.
    """
    loop = Loop(begin(training), monitor)
    loop.require_memory()
    try:
        while not loop.over:
            loop.step()
            loop.look_around()
        return loop.finish()
    except Draining:
        loop.checkpoint()
        raise


@dataclass
class Loop:
    """A run, who watches it, and the losses since the last point of its curves."""

    run: Run
    monitor: Monitor
    sums: dict[str, float] = field(default_factory=dict)
    summed: int = 0

    def __post_init__(self) -> None:
        self.training, self.network = self.run.training, self.run.network
        self.state = self.run.parts.state
        params = self.training.params
        self.cadences = {
            "points": Cadence(0, POINTS, 1),
            "validation": Cadence(params.validate_every, VALIDATIONS, LEAST_STEPS),
            "preview": Cadence(params.preview_every, PREVIEWS, LEAST_STEPS),
        }
        self.rate = params.finetune_rate if self.training.parent else 1.0
        self.began = time.monotonic() - self.state.elapsed_s
        self.checkpointed_s = self.state.elapsed_s

    def require_memory(self) -> None:
        """Refuse a run that cannot fit, and log what it will take."""
        batch, device = self.run.batch(0), self.training.device
        rows = min(len(batch.data), self.network.rows_at_once or len(batch.data))
        self.footprint = footprint(self.network, batch, precision=self.training.precision)
        needed = self.footprint.training_bytes(rows)
        setting = (
            "micro_batch"
            if "micro_batch" in type(self.training.params).model_fields
            else "batch_size"
        )
        remedy = f"take a {setting} below {rows}, or a smaller network"
        require(needed, device, what=f"training on {rows} rows at once", remedy=remedy)
        self.monitor.log(f"needs about {to_gb(needed)} of memory on {device}")

    @property
    def progress(self) -> float:
        """From 0 to 1 of the budget."""
        return self.training.budget.progress(self.state.step, self.state.elapsed_s)

    @property
    def over(self) -> bool:
        """Whether the budget is spent."""
        return self.progress >= 1

    def step(self) -> None:
        """One update of the network."""
        self.network.train()
        batch = self.run.batch(self.state.step)
        clock = Clock(self.state.step, self.progress, self.rate / 2**self.state.roll_backs)
        with autocast(self.training.device, self.training.precision):
            losses = _numbers(self.network.train_step(batch, self.run.parts.optimizers, clock))
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.summed += 1
        self.state.step += 1
        self.state.elapsed_s = time.monotonic() - self.began
        if reason := _not_finite(losses, self.state.step):
            self._go_back(reason)

    def look_around(self) -> None:
        """Between two steps: points, validation, a preview, a checkpoint, and orders to stop."""
        if self._due("points"):
            self._put_points("train", {k: v / self.summed for k, v in self.sums.items()})
            self.sums, self.summed = {}, 0
        if self._due("validation") and not self.over:
            self.validate()
        if self._due("preview") and not self.over:
            self.monitor.preview(*self._page(f"samples-{self.state.step:07d}", quick=True))
        if self.state.elapsed_s - self.checkpointed_s >= self.training.checkpoint_every_s:
            self.checkpoint()
        self._tell()

    def validate(self) -> None:
        """Put the mean losses over a part of the validation split; keep the best weights so far."""
        if losses := self._measure(whole=False):
            reason = _not_finite(losses, self.state.step) or self.network.judge(losses)
            if reason:
                self._go_back(reason)
            else:
                self._keep(losses)
                self._put_points("validation", losses)
        self.state.elapsed_s = time.monotonic() - self.began

    def checkpoint(self) -> None:
        """Store all that the run needs to go on."""
        path = self.training.folder / CHECKPOINT
        self.run.parts.save(path, identity=self.run.identity)
        self.checkpointed_s = self.state.elapsed_s
        self.monitor.checkpoint(self.state.step, path)
        path.unlink(missing_ok=True)

    def finish(self) -> Trained:
        """Take the best weights, measure them, and write the version's files and the reports."""
        self.validate()
        if self.network.keeps_best and self.run.parts.best:
            self.network.load_state_dict(self.run.parts.best)
        self.network.end_training()
        # no checkpoint from here on, for it would hold other weights: `_measure` heeds no draining
        self.state.best_losses = losses = self._measure(whole=True)
        if reason := _not_finite(losses, self.state.step):
            raise NonFinite(reason)
        folder, curves = self.run.version, self.training.folder / "losses.png"
        save(self.network, folder, family=self.training.family)
        draw_curves(self.state.curves, curves)
        reports = [self._page("samples"), (curves.name, curves, "image/png")]
        files = _files(folder, self.network.weights_file)
        return Trained(folder, files, self._metrics(), self.state.step, reports)

    def _measure(self, *, whole: bool) -> dict[str, float]:
        """Mean losses over the validation split, or a part of it; none where the split is empty."""
        network, sums, count = self.network.eval(), dict[str, float](), 0.0
        with torch.inference_mode(), autocast(self.training.device, self.training.precision):
            for batch in self.run.validation(whole=whole):
                losses = _numbers(network.validate(batch))
                weight = losses.pop("count", len(batch.data))
                count += weight
                for name, value in losses.items():
                    sums[name] = sums.get(name, 0.0) + value * weight
                with suppress(Draining):  # a validation is finished first, and then it comes again
                    self._tell()
        return {name: value / count for name, value in sums.items()}

    def _metrics(self) -> dict[str, float]:
        rate = time_sampling(self._sampler())
        return self.state.best_losses | {
            "steps": self.state.step,
            "kept_step": self.state.best_step,
            "seconds": round(self.state.elapsed_s, 3),
            "samples_per_second": round(rate, 3),
            "row_bytes": self.footprint.row_bytes,
        }

    def _keep(self, losses: dict[str, float]) -> None:
        """Note losses and weights, where they are the best or the family keeps the last."""
        state, best = self.state, self.state.best_losses
        if self.network.keeps_best and best and losses["loss"] >= best["loss"]:
            return
        state.best_step, state.best_losses = state.step, losses
        if self.network.keeps_best or self.network.rolls_back:
            weights = self.network.state_dict().items()
            self.run.parts.best = {name: value.detach().clone() for name, value in weights}

    def _go_back(self, reason: str) -> None:
        """Take up the last good weights at half the rate, or fail where that is of no use."""
        state, parts = self.state, self.run.parts
        if not self.network.rolls_back:
            raise NonFinite(reason)
        if state.roll_backs == ROLL_BACKS or (self.over and not parts.best):
            raise Collapsed(
                f"{reason}; {state.roll_backs} roll-backs to good weights, each at half the rate, "
                "did not help. A lower lr or a stronger penalty may"
            )
        state.roll_backs += 1
        where = f"step {state.best_step}" if parts.best else "no step: none was good"
        self.monitor.log(
            f"{reason}; back to the weights of {where}, at 1/{2**state.roll_backs} of the rate",
            level="warning",
        )
        if parts.best:
            self.network.load_state_dict(parts.best)
        self.network.roll_back()
        parts.optimizers = self.network.optimizers()
        self.sums, self.summed = {}, 0

    def _due(self, what: str) -> bool:
        mark = self.state.marks.get(what, (0, 0))
        due, self.state.marks[what] = self.cadences[what].due(mark, self.state.step, self.progress)
        return due

    def _put_points(self, group: str, values: Mapping[str, float]) -> None:
        named = {f"{group}/{name}": value for name, value in values.items()}
        for name, value in named.items():
            self.state.curves.setdefault(name, []).append((self.state.step, value))
        self.monitor.points(self.state.step, named)

    def _tell(self) -> None:
        done, total, unit = self.training.budget.read(self.state.step, self.state.elapsed_s)
        eta_s = self.state.elapsed_s / done * (total - done) if done else None
        losses = self.state.best_losses
        note = f"validation loss {losses['loss']:.4g}" if losses else ""
        self.monitor.progress(done, total, unit, eta_s=eta_s, note=note)

    def _sampler(self, **settings: int) -> Sampler:
        seed = derive(self.training.seed, "preview")
        sampling = self.training.family.sampling(**settings)
        return Sampler(self.network, sampling, seed=seed, precision=self.training.precision)

    def _page(self, name: str, *, quick: bool = False) -> Report:
        """A page to look at; few rows at once, so that few texts take little time."""
        medium = find_medium(self.network.shape.media)
        sampler = self._sampler(micro_batch=medium.page.micro_batch)
        if quick:
            sampler.sampling = sampler.sampling.for_preview()
        return page(sampler, self.training.folder, name=name)


def _files(folder: Path, weights: str) -> list[Path]:
    """The version's files: weights, configuration, and what its family keeps beside them."""
    beside = sorted(path for path in folder.iterdir() if path.name not in (weights, CONFIG))
    return [folder / weights, folder / CONFIG, *beside]


def _numbers(losses: Losses) -> dict[str, float]:
    """The losses as numbers: the device is waited for once, not once for each."""
    values = torch.stack([value.double() for value in losses.values()])  # exact, counts too
    return dict(zip(losses, values.tolist(), strict=True))


def _not_finite(losses: Mapping[str, float], step: int) -> str | None:
    """What is wrong with losses that are not all numbers."""
    for name, value in losses.items():
        if not math.isfinite(value):
            return f"{name} is {value} at step {step}; nothing was written. A lower lr may help"
    return None
