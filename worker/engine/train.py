"""The training loop of every family: budget, curves, validation, previews, checkpoints.

It knows no family and no queue. If only steps are limited, a run is reproducible: N steps equal k
steps, an interruption and N-k more, bit for bit on the CPU.
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
from worker.engine.run import Run, Training, build_run, derive_seed
from worker.engine.weights import save
from worker.media import find_medium
from worker.networks.network import Clock, Losses
from worker.networks.version_folder import CONFIG

__all__ = ["Report", "Trained", "Training", "train"]

POINTS = 200  # of a run's training curve, about
VALIDATIONS, PREVIEWS = 10, 4  # of a run, if its parameters do not say
MIN_STEPS = 50  # between two of either
CHECKPOINT = "checkpoint.safetensors"
MAX_ROLL_BACKS = 2  # the next bad validation fails the run
LOWER_RATE = "no version was written; a lower lr may help"

Report = tuple[str, Path, str]  # name, path, media type


@dataclass(frozen=True)
class Trained:
    """A finished run: the version's `files`, all in `folder`, and `reports` for people.

    `metrics` holds the validation losses of the version's weights and their step (`kept_step`),
    `steps`, `seconds`, `samples_per_second`, the measured speed of generation, and `row_bytes`, the
    memory that one row of a forward pass takes.
    """

    folder: Path
    files: list[Path]
    metrics: dict[str, float]
    steps: int
    reports: list[Report]


def train(training: Training, monitor: Monitor) -> Trained:
    """Train until the budget is spent.

    Raises `NonFinite` if a loss or weight is NaN or infinite and `Collapsed` if roll-backs did not
    help, and lets the monitor's `Stopped` through: on `Draining` it stores a checkpoint first.
    """
    loop = Loop(build_run(training), monitor)
    loop.require_memory()
    try:
        while not loop.over:
            loop.step()
            loop.after_step()
        return loop.finish()
    except Draining:
        loop.checkpoint()
        raise


@dataclass
class Loop:
    """A run, its monitor, and the sums of `summed` training losses since the last curve point."""

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
            "validation": Cadence(params.validate_every, VALIDATIONS, MIN_STEPS),
            "preview": Cadence(params.preview_every, PREVIEWS, MIN_STEPS),
        }
        self.rate = params.finetune_rate if self.training.parent else 1.0
        self.began = time.monotonic() - self.state.elapsed_s
        self.checkpointed_s = self.state.elapsed_s

    def require_memory(self) -> None:
        """Raise `TooLarge` if the run does not fit into memory; log what it needs."""
        batch, device = self.run.batch(0), self.training.device
        rows = min(len(batch.data), self.network.rows_at_once or len(batch.data))
        self.footprint = footprint(self.network, batch, precision=self.training.precision)
        needed = self.footprint.training_bytes(rows)
        fields = type(self.training.params).model_fields
        setting = "micro_batch" if "micro_batch" in fields else "batch_size"
        remedy = f"choose a {setting} below {rows}, or a smaller network"
        require(needed, device, what=f"training on {rows} rows at once", remedy=remedy)
        self.monitor.log(f"needs about {to_gb(needed)} of memory on {device}")

    @property
    def progress(self) -> float:
        """The share of the budget that is spent, 0 to 1."""
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
            self._roll_back(reason)

    def after_step(self) -> None:
        """Do what is due between two steps: curve points, validation, preview, checkpoint."""
        if self._due("points"):
            self._add_points("train", {k: v / self.summed for k, v in self.sums.items()})
            self.sums, self.summed = {}, 0
        if self._due("validation") and not self.over:
            self.validate()
        if self._due("preview") and not self.over:
            self.monitor.preview(*self._preview(f"samples-{self.state.step:07d}", quick=True))
        if self.state.elapsed_s - self.checkpointed_s >= self.training.checkpoint_every_s:
            self.checkpoint()
        self._report_progress()

    def validate(self) -> None:
        """Add the mean losses over part of the validation split; keep the weights or roll back."""
        if losses := self._mean_losses(whole=False):
            reason = _not_finite(losses, self.state.step) or self.network.judge(losses)
            if reason:
                self._roll_back(reason)
            else:
                self._keep_weights(losses)
                self._add_points("validation", losses)
        self.state.elapsed_s = time.monotonic() - self.began

    def checkpoint(self) -> None:
        """Store a checkpoint."""
        path = self.training.folder / CHECKPOINT
        self.run.parts.save(path, fingerprint=self.run.fingerprint)
        self.checkpointed_s = self.state.elapsed_s
        self.monitor.checkpoint(self.state.step, path)
        path.unlink(missing_ok=True)

    def finish(self) -> Trained:
        """Restore the best weights, validate them, and write the version and the reports."""
        self.validate()
        if self.network.keeps_best and self.run.parts.best:
            self.network.load_state_dict(self.run.parts.best)
        self.network.end_training()
        # no checkpoint from here on, it would hold other weights: `_mean_losses` ignores Draining
        self.state.best_losses = losses = self._mean_losses(whole=True)
        if reason := _not_finite(losses, self.state.step):
            raise NonFinite(reason, remedy=LOWER_RATE)
        folder, curves = self.run.version, self.training.folder / "losses.png"
        save(self.network, folder, family=self.training.family)
        draw_curves(self.state.curves, curves)
        reports = [self._preview("samples"), (curves.name, curves, "image/png")]
        first = [folder / self.network.weights_file, folder / CONFIG]
        files = first + sorted(path for path in folder.iterdir() if path not in first)
        return Trained(folder, files, self._metrics(), self.state.step, reports)

    def _mean_losses(self, *, whole: bool) -> dict[str, float]:
        """Mean losses over the validation split, or part of it; empty if the split is."""
        network, sums, count = self.network.eval(), dict[str, float](), 0.0
        with torch.inference_mode(), autocast(self.training.device, self.training.precision):
            for batch in self.run.validation(whole=whole):
                losses = _numbers(network.validate(batch))
                weight = losses.pop("count", len(batch.data))
                count += weight
                for name, value in losses.items():
                    sums[name] = sums.get(name, 0.0) + value * weight
                with suppress(Draining):  # raised again by the next report, after the validation
                    self._report_progress()
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

    def _keep_weights(self, losses: dict[str, float]) -> None:
        """Keep losses and weights if they are the best, or if the family keeps the last ones."""
        state, best = self.state, self.state.best_losses
        if self.network.keeps_best and best and losses["loss"] >= best["loss"]:
            return
        state.best_step, state.best_losses = state.step, losses
        if self.network.keeps_best or self.network.rolls_back:
            weights = self.network.state_dict().items()
            self.run.parts.best = {name: value.detach().clone() for name, value in weights}

    def _roll_back(self, reason: str) -> None:
        """Restore the last good weights and halve the learning rate, or fail if that is no use."""
        state, parts = self.state, self.run.parts
        if not self.network.rolls_back:
            raise NonFinite(reason, remedy=LOWER_RATE)
        if state.roll_backs == MAX_ROLL_BACKS or (self.over and not parts.best):
            raise Collapsed(
                f"{reason}, after {state.roll_backs} roll-backs to good weights at half the rate",
                remedy="a lower lr or a stronger penalty may help",
            )
        state.roll_backs += 1
        weights = f"the weights of step {state.best_step}" if parts.best else "the current weights"
        self.monitor.log(
            f"{reason}; continuing from {weights} at 1/{2**state.roll_backs} of the learning rate",
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

    def _add_points(self, group: str, values: Mapping[str, float]) -> None:
        named = {f"{group}/{name}": value for name, value in values.items()}
        for name, value in named.items():
            self.state.curves.setdefault(name, []).append((self.state.step, value))
        self.monitor.points(self.state.step, named)

    def _report_progress(self) -> None:
        done, total, unit = self.training.budget.spent(self.state.step, self.state.elapsed_s)
        eta_s = self.state.elapsed_s / done * (total - done) if done else None
        losses = self.state.best_losses
        note = f"validation loss {losses['loss']:.4g}" if losses else ""
        self.monitor.progress(done, total, unit, eta_s=eta_s, note=note)

    def _sampler(self, **settings: int) -> Sampler:
        sampling = self.training.family.sampling(**settings)
        return Sampler(self.network, sampling, precision=self.training.precision)

    def _preview(self, name: str, *, quick: bool = False) -> Report:
        """A file of samples, made in micro-batches that are small enough for few slow texts."""
        medium = find_medium(self.network.shape.media)
        sampler = self._sampler(micro_batch=medium.page.micro_batch)
        if quick:
            sampler.sampling = sampler.sampling.for_preview()
        seed = derive_seed(self.training.seed, "preview")
        return page(sampler, self.training.folder, name=name, seed=seed)


def _numbers(losses: Losses) -> dict[str, float]:
    """The losses as floats, with one synchronisation with the device instead of one per loss."""
    values = torch.stack(
        [value.double() for value in losses.values()]
    )  # float64 is exact for counts too
    return dict(zip(losses, values.tolist(), strict=True))


def _not_finite(losses: Mapping[str, float], step: int) -> str | None:
    bad = (f"{name} is {value}" for name, value in losses.items() if not math.isfinite(value))
    return next((f"{found} at step {step}" for found in bad), None)
