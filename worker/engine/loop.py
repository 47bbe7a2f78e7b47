"""The loop of a training run: steps, and what is due between them.

It knows no family and no queue. Validations and previews run beside the steps on a copy of the
network, checkpoints are written beside them.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from torch import Tensor

from db.errors import Cancelled, Collapsed, Draining, NonFinite
from worker.engine.background import Background, NetworkCopy
from worker.engine.budget import TimeShare, cadences
from worker.engine.device import autocast
from worker.engine.losses import TrainingLosses, not_finite
from worker.engine.memory import Footprint
from worker.engine.monitor import Monitor
from worker.engine.previews import Report, preview_page
from worker.engine.run import Run
from worker.engine.stages import VALIDATING, Stages
from worker.engine.threads import ThreadChoice
from worker.engine.validation import mean_losses
from worker.networks.network import Clock, Network

PREVIEW_SHARE = 0.015  # of a run's time, if its parameters do not say when to make previews
CHECKPOINT, LAST_CHECKPOINT = "checkpoint.safetensors", "last-checkpoint.safetensors"
MAX_ROLL_BACKS = 2  # the next bad validation fails the run
ORDERS = (Draining, Cancelled)  # that leave a checkpoint
LOWER_RATE = "no version was written; a lower lr may help"
SPEED_STEPS, SPEED_SHARE, SPEED_S = 20, 0.05, 10.0  # steps, share and seconds: it is known then


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
        self._told_epochs = False
        self.stages = Stages(self.monitor.stages)
        self.preview_time = TimeShare(PREVIEW_SHARE)
        self.replaced = False  # the weights, by the best ones: no checkpoint would hold this step's

    @property
    def progress(self) -> float:
        """The share of the budget that is spent, 0 to 1."""
        return self.training.budget.progress(self.state.step, self.state.elapsed_s)

    @property
    def over(self) -> bool:
        """Whether the budget is spent, or the run is to end early."""
        if self.progress >= 1:
            return True
        done, *_ = self.training.budget.spent(self.state.step, self.state.elapsed_s)
        return self.training.ends_early(done)

    @property
    def ended_early(self) -> bool:
        """Whether the run ends before its budget is spent."""
        return self.over and self.progress < 1

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
        self.background.raise_if_failed(but=Draining)  # raised again where its weights would go
        self._log_threads()
        self._log_epochs()
        if self._due("points"):
            self.read_losses()
            self._add_points("train", self.losses.take_means())
        if self._due("validation") and not self.over:
            self.validate()
        if self._due("preview") and not self.over and self._can_preview:
            self.preview()
        if self.state.elapsed_s - self.checkpointed_s >= self.training.checkpoint_every_s:
            self.checkpoint()
        self._report()

    @property
    def _can_preview(self) -> bool:
        asked = self.training.params.preview_every > 0
        return asked or self.preview_time.allows(self.state.elapsed_s)

    def validate(self) -> None:
        """Add the mean losses over part of the validation split; keep the weights or roll back."""
        step = self.state.step
        self.state.validating.append(step)
        if self.network.rolls_back:
            self.judge(self.network, step)
        else:
            self.beside.run(lambda network: self.judge(network, step), step=step)
        self.state.elapsed_s = time.monotonic() - self.began

    def finish_validations(self) -> None:
        """Make the validations that had not ended when the run's checkpoint was written."""
        for step in self.state.validating[:]:
            if step == self.state.step:
                self.judge(self.network, step)
            else:
                with weights_of(self.network, self.run.parts.validated):
                    self.judge(self.network, step)

    def preview(self) -> None:
        """Store a page of samples made by the weights of this step."""
        name = f"samples-{self.state.step:07d}"

        def make(network: Network) -> Report:
            with self.preview_time.spending():
                return preview_page(network, self.training, name=name, after_step=self._report)

        self.beside.run(make, step=self.state.step, then=lambda made: self.monitor.preview(*made))

    def checkpoint(self) -> None:
        """Store a checkpoint of this step, beside the next ones."""
        self.background.wait()  # for a validation that decides which weights are the best
        self.background.run(self._snapshot(CHECKPOINT))

    def drain(self) -> None:
        """Store a checkpoint of this step now, and drop what else waits or runs beside.

        What is waited for is a batch of a validation: the rest of it is made on resuming.
        """
        self.background.raise_if_failed(but=ORDERS)
        self.background.drop_waiting()
        if self.state.validating:
            with suppress(*ORDERS):
                self.background.wait()
        earlier = any(step != self.state.step for step in self.state.validating)
        if earlier and not self.run.parts.validated:
            self.run.parts.validated = self.beside.weights()
        self._snapshot(LAST_CHECKPOINT)()

    def leave(self) -> None:
        """As `drain`, for a retry of a run that was cancelled; what prevents it is no error."""
        with suppress(Exception):
            if self.state.step and not self.replaced:
                self.drain()

    def _snapshot(self, name: str) -> Callable[[], None]:
        """What stores this step's checkpoint, which is copied now."""
        self.read_losses()
        path, step = self.training.folder / name, self.state.step
        snapshot = self.run.parts.snapshot(fingerprint=self.run.fingerprint)
        self.checkpointed_s = self.state.elapsed_s

        def store() -> None:
            snapshot.write(path)
            self.monitor.checkpoint(step, path)
            path.unlink(missing_ok=True)

        return store

    def _log_threads(self) -> None:
        if self.threads.chosen != self._logged_threads and self.training.device.type == "cpu":
            self._logged_threads = self.threads.chosen
            self.monitor.log(f"CPU threads from step {self.state.step} on: {self.threads.chosen}")

    def _log_epochs(self) -> None:
        """Once the speed is known, say how much of the data the budget is going to show."""
        step, elapsed_s, progress = self.state.step, self.state.elapsed_s, self.progress
        early = progress < SPEED_SHARE and elapsed_s < SPEED_S
        if self._told_epochs or step < SPEED_STEPS or early:
            return
        self._told_epochs = True
        steps, speed = step / progress, step / max(elapsed_s, 1e-6)
        epochs = self.run.epochs(round(steps))
        told = (
            f"{speed:.3g} steps/s: the budget holds about {steps:,.0f} steps, {epochs:.2g} epochs"
        )
        family = self.training.family
        if self.training.parent is None and family.is_short(steps, epochs):
            self.monitor.log(f"{told}; {family.least}", level="warning")
        else:
            self.monitor.log(told)

    def read_losses(self) -> None:
        """Read the losses that a GPU may still compute; roll back if one is not finite."""
        if reason := self.losses.read():
            self._roll_back(reason)

    def judge(self, network: Network, step: int) -> None:
        """Validate the network as it was after `step` steps; keep its weights or roll back."""
        if losses := self.mean_losses(network, after_batch=self._report):
            reason = not_finite(losses, step) or network.judge(losses)
            if reason:
                self._roll_back(reason)
            else:
                self._keep_weights(network, step, losses)
                self._add_points("validation", losses, step=step)
        if step in self.state.validating:
            self.state.validating.remove(step)
            self.run.parts.validated = {}

    def mean_losses(
        self, network: Network, *, after_batch: Callable[[], None], whole: bool = False
    ) -> dict[str, float]:
        """Mean losses over the validation split, or part of it; empty if the split is."""
        batches, count = self.run.validation(whole=whole), self.run.validation_count(whole=whole)
        with self.stages.under_way(VALIDATING, count, "batches") as advance:

            def after_one() -> None:
                advance()
                after_batch()

            return mean_losses(network, batches, self.training, after_batch=after_one)

    def _keep_weights(self, network: Network, step: int, losses: dict[str, float]) -> None:
        """Keep losses and weights if they are the best, or if the family keeps the last ones."""
        state, best = self.state, self.state.best_losses
        told = f"step {step:,}: validation loss {losses['loss']:.4g}"
        if network.keeps_best and best and losses["loss"] >= best["loss"]:
            self.monitor.log(f"{told}; the best is {best['loss']:.4g} of step {state.best_step:,}")
            return
        self.monitor.log(f"{told}, the best so far" if network.keeps_best else told)
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

    def report_to_the_end(self) -> None:
        """Report progress in what a worker that shuts down still finishes."""
        with suppress(Draining):
            self._report()

    def _report(self) -> None:
        done, total, unit = self.training.budget.spent(self.state.step, self.state.elapsed_s)
        eta_s = self.state.elapsed_s / done * (total - done) if done else None
        losses = self.state.best_losses
        note = f"validation loss {losses['loss']:.4g}" if losses else ""
        self.monitor.progress(done, total, unit, eta_s=eta_s, note=note)


@contextmanager
def weights_of(network: Network, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Run the block with other weights in the network."""
    own = {name: value.clone() for name, value in network.state_dict().items()}
    network.load_state_dict(weights)
    try:
        yield
    finally:
        network.load_state_dict(own)
