"""The training loop of every family: budget, curves, validation, previews, checkpoints.

It knows no family and no queue. If only steps are limited, a run is reproducible: N steps equal k
steps, an interruption and N-k more, bit for bit on the CPU if the number of threads is fixed.
Validations and previews run beside the steps on a copy of the network, checkpoints are written
beside them.
"""

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from db.errors import Collapsed, Draining, NonFinite
from worker.engine.background import Background, NetworkCopy
from worker.engine.budget import TimeShare, cadences
from worker.engine.curves import draw_curves
from worker.engine.device import autocast
from worker.engine.losses import TrainingLosses, not_finite
from worker.engine.memory import Footprint
from worker.engine.monitor import Monitor
from worker.engine.previews import Report, last_page, preview_page
from worker.engine.run import Run, Training, build_run, require_memory
from worker.engine.threads import ThreadChoice
from worker.engine.validation import mean_losses
from worker.engine.weights import save
from worker.networks.network import Clock, Network
from worker.networks.version_folder import CONFIG

__all__ = ["Report", "Trained", "Training", "train"]

PREVIEW_SHARE = 0.015  # of a run's time, if its parameters do not say when to make previews
CHECKPOINT = "checkpoint.safetensors"
MAX_ROLL_BACKS = 2  # the next bad validation fails the run
LOWER_RATE = "no version was written; a lower lr may help"


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
    run = build_run(training)
    loop = Loop(run, monitor, require_memory(run, monitor))
    try:
        while not loop.over:
            loop.step()
            loop.after_step()
        return loop.finish()
    except Draining:
        loop.checkpoint()
        loop.background.wait()
        raise
    finally:
        loop.background.close()


@dataclass
class Loop:
    """A run, its monitor, and the memory that it was found to take."""

    run: Run
    monitor: Monitor
    footprint: Footprint

    def __post_init__(self) -> None:
        self.training, self.network = self.run.training, self.run.network
        self.state = self.run.parts.state
        self.cadences = cadences(self.training.params)
        self.rate = self.training.params.finetune_rate if self.training.parent else 1.0
        self.losses = TrainingLosses()
        self.began = time.monotonic() - self.state.elapsed_s
        self.checkpointed_s = self.state.elapsed_s
        self.background = Background()
        self.beside = NetworkCopy(self.network, self.training.device, self.background)
        self.threads = ThreadChoice(None if self.training.device.type == "cpu" else 1)
        self._logged_threads = 0
        self.preview_time = TimeShare(PREVIEW_SHARE)

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
        if not self.network.training:
            self.network.train()
        batch = self.run.batch(self.state.step)
        clock = Clock(self.state.step, self.progress, self.rate / 2**self.state.roll_backs)
        with (
            autocast(self.training.device, self.training.precision),
            self.threads.step(measured=not self.background.busy),
        ):
            losses = self.network.train_step(batch, self.run.parts.optimizers, clock)
        self.state.step += 1
        reason = self.losses.add(self.state.step, losses)
        self.state.elapsed_s = time.monotonic() - self.began
        if reason:
            self._roll_back(reason)

    def after_step(self) -> None:
        """Do what is due between two steps: curve points, validation, preview, checkpoint."""
        self.background.raise_if_failed()
        self._log_threads()
        if self._due("points"):
            self._read_losses()
            self._add_points("train", self.losses.take_means())
        if self._due("validation") and not self.over:
            self.validate()
        if self._due("preview") and not self.over and self._can_preview:
            self.preview()
        if self.state.elapsed_s - self.checkpointed_s >= self.training.checkpoint_every_s:
            self.checkpoint()
        self._report_progress()

    @property
    def _can_preview(self) -> bool:
        asked = self.training.params.preview_every > 0
        return asked or self.preview_time.allows(self.state.elapsed_s)

    def validate(self) -> None:
        """Add the mean losses over part of the validation split; keep the weights or roll back."""
        if self.network.rolls_back:
            self._judge(self.network, self.state.step)
        else:
            step = self.state.step
            self.beside.run(lambda network: self._judge(network, step), step=step)
        self.state.elapsed_s = time.monotonic() - self.began

    def preview(self) -> None:
        """Store a page of samples made by the weights of this step."""
        name = f"samples-{self.state.step:07d}"

        def make(network: Network) -> Report:
            with self.preview_time.spending():
                return preview_page(network, self.training, name=name)

        self.beside.run(make, step=self.state.step, then=lambda made: self.monitor.preview(*made))

    def checkpoint(self) -> None:
        """Store a checkpoint of this step, beside the next ones."""
        self.background.wait()  # for a validation that decides which weights are the best
        self._read_losses()
        path, step = self.training.folder / CHECKPOINT, self.state.step
        snapshot = self.run.parts.snapshot(fingerprint=self.run.fingerprint)
        self.checkpointed_s = self.state.elapsed_s

        def store() -> None:
            snapshot.write(path)
            self.monitor.checkpoint(step, path)
            path.unlink(missing_ok=True)

        self.background.run(store)

    def finish(self) -> Trained:
        """Restore the best weights, validate them, and write the version and the reports."""
        self.background.wait()
        self._read_losses()
        self._judge(self.network, self.state.step)
        if self.network.keeps_best and self.run.parts.best:
            self.network.load_state_dict(self.run.parts.best)
        self.network.end_training()
        # `end_training` may have changed the network's form
        self.beside = NetworkCopy(self.network, self.training.device, self.background)
        pages = list[tuple[Report, float]]()
        self.beside.run(
            lambda network: last_page(network, self.training),
            step=self.state.step,
            then=pages.append,
        )
        # no checkpoint from here on, it would hold other weights: `_mean_losses` ignores Draining
        self.state.best_losses = losses = self._mean_losses(self.network, whole=True)
        if reason := not_finite(losses, self.state.step):
            raise NonFinite(reason, remedy=LOWER_RATE)
        folder, curves = self.run.version, self.training.folder / "losses.png"
        save(self.network, folder, family=self.training.family)
        draw_curves(self.state.curves, curves)
        self.background.wait()
        ((report, speed),) = pages
        reports = [report, (curves.name, curves, "image/png")]
        first = [folder / self.network.weights_file, folder / CONFIG]
        files = first + sorted(path for path in folder.iterdir() if path not in first)
        return Trained(folder, files, self._metrics(speed), self.state.step, reports)

    def _log_threads(self) -> None:
        if self.threads.chosen != self._logged_threads and self.training.device.type == "cpu":
            self._logged_threads = self.threads.chosen
            self.monitor.log(f"CPU threads from step {self.state.step} on: {self.threads.chosen}")

    def _read_losses(self) -> None:
        if reason := self.losses.read():
            self._roll_back(reason)

    def _judge(self, network: Network, step: int) -> None:
        """Validate the network as it was after `step` steps; keep its weights or roll back."""
        if losses := self._mean_losses(network):
            reason = not_finite(losses, step) or network.judge(losses)
            if reason:
                self._roll_back(reason)
            else:
                self._keep_weights(network, step, losses)
                self._add_points("validation", losses, step=step)

    def _mean_losses(self, network: Network, *, whole: bool = False) -> dict[str, float]:
        """Mean losses over the validation split, or part of it; empty if the split is."""

        def report() -> None:
            with suppress(Draining):  # raised again by the next report, after the validation
                self._report_progress()

        return mean_losses(
            network, self.run.validation(whole=whole), self.training, after_batch=report
        )

    def _metrics(self, samples_per_second: float) -> dict[str, float]:
        return self.state.best_losses | {
            "steps": self.state.step,
            "kept_step": self.state.best_step,
            "seconds": round(self.state.elapsed_s, 3),
            "samples_per_second": round(samples_per_second, 3),
            "row_bytes": self.footprint.row_bytes,
        }

    def _keep_weights(self, network: Network, step: int, losses: dict[str, float]) -> None:
        """Keep losses and weights if they are the best, or if the family keeps the last ones."""
        state, best = self.state, self.state.best_losses
        if network.keeps_best and best and losses["loss"] >= best["loss"]:
            return
        state.best_step, state.best_losses = step, losses
        if network.keeps_best or network.rolls_back:
            weights = network.state_dict().items()
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
        self.losses.clear()

    def _due(self, what: str) -> bool:
        mark = self.state.marks.get(what, (0, 0))
        due, self.state.marks[what] = self.cadences[what].due(mark, self.state.step, self.progress)
        return due

    def _add_points(
        self, group: str, values: Mapping[str, float], *, step: int | None = None
    ) -> None:
        """Add points to the curves, at this step if no other is given."""
        step = self.state.step if step is None else step
        named = {f"{group}/{name}": value for name, value in values.items()}
        for name, value in named.items():
            self.state.curves.setdefault(name, []).append((step, value))
        self.monitor.points(step, named)

    def _report_progress(self) -> None:
        done, total, unit = self.training.budget.spent(self.state.step, self.state.elapsed_s)
        eta_s = self.state.elapsed_s / done * (total - done) if done else None
        losses = self.state.best_losses
        note = f"validation loss {losses['loss']:.4g}" if losses else ""
        self.monitor.progress(done, total, unit, eta_s=eta_s, note=note)
