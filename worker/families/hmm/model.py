"""The network of `hmm`: its weights are expected counts, its training step is one of EM."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from db.errors import NonFinite
from worker.data.dataset import LocalDataset, Shape
from worker.families.hmm import HmmParams, HmmSampling
from worker.families.hmm.chain import forward
from worker.families.hmm.decoding import FilterDecoder, sample_vectors
from worker.families.hmm.emissions import Discrete, Emissions, Gaussian
from worker.families.hmm.feed import NumberSequences, TokenSequences
from worker.families.hmm.learning import (
    Counts,
    Model,
    expectation,
    initialise,
    log_likelihoods,
    rows_at_once,
)
from worker.families.hmm.numbers import Scale, load_scale, parse_numbers, write_numbers
from worker.feeds.feed import Feed
from worker.networks.decoding import Decoder
from worker.networks.network import (
    Batch,
    Clock,
    Draw,
    Draws,
    Finished,
    Losses,
    Network,
    Output,
    Row,
)
from worker.networks.params import SamplingParams, TrainingParams
from worker.networks.text_network import MakesFeed, TextNetwork


class HiddenMarkovModel(TextNetwork):
    """The network of family `hmm`; its parameters are an `HmmParams`.

    Data: tokens int64 (B, T), of which `~t` is read but not predicted, or standardised numbers
    float64 (B, T, D); missing ones as in `Emissions`.
    """

    params: HmmParams
    makes_feed: ClassVar[MakesFeed] = TokenSequences

    def __init__(self, params: TrainingParams, shape: Shape) -> None:
        super().__init__(params, shape)
        states = self.params.states
        self.scale: Scale | None = None
        self.kind: Emissions = Discrete(shape.vocabulary)
        if self.params.emissions == "gaussian":
            self.kind = Gaussian(shape.channels, floor=self.params.floor)
        self.initial = _fixed(states)
        self.transitions = _fixed(states, states)
        self.emissions = _fixed(states, self.kind.width)
        self.rows_at_once = rows_at_once(self.params.context + 1)
        self._inherited: Counts | None = None

    @classmethod
    def feed(cls, params: TrainingParams, dataset: LocalDataset, *, seed: int, files: Path) -> Feed:
        """Sequences; `tokenizer.json` or `scale.json` is read from `files` or written there."""
        settings = cast(HmmParams, params)
        if settings.emissions == "discrete":
            return super().feed(params, dataset, seed=seed, files=files)
        context, batch_size = settings.context, settings.batch_size
        return NumberSequences(
            dataset, context=context, batch_size=batch_size, seed=seed, files=files
        )

    def load_files(self, folder: Path) -> None:
        """Read the tokenizer or the scale, which sampling needs."""
        if self.params.emissions == "gaussian":
            self.scale = load_scale(folder)
        else:
            super().load_files(folder)

    def begin_finetuning(self) -> None:
        """Keep the parent's counts as a prior."""
        self._inherited = self.counts.times(1.0)

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """None: there are no gradients."""
        return {}

    def train_step(
        self, batch: Batch, optimizers: Mapping[str, torch.optim.Optimizer], clock: Clock
    ) -> Losses:
        """One step of EM; the first step initialises the counts at random.

        `loss` is the negative log-likelihood per observation before the update. `objective` is the
        same with the prior, and never rises if the batch is the whole training set.
        """
        if clock.step == 0 and self._inherited is None:
            self._initialise(batch.data)
        found = expectation(self.model, batch.data, rows=self.rows_at_once)
        penalised = found.log_likelihood + self.model.log_prior
        whole = len(batch.data) < self.params.batch_size  # see the feeds
        decay = 1.0 if whole else (clock.step + 2) ** -self.params.step_decay
        self._move(self._with_inherited(found.counts, clock.rate), self.params.lr * decay)
        return {"loss": -found.log_likelihood / found.steps, "objective": -penalised / found.steps}

    def validate(self, batch: Batch) -> Losses:
        """`loss` in nats per token or, for numbers, per vector in their own units."""
        predicted = self.kind.predicted(batch.data)
        total = -(log_likelihoods(self.model, batch.data) * predicted).sum()
        loss = total / predicted.sum().clamp(min=1)
        if self.scale is not None:
            return {"loss": loss + self.scale.log_volume}
        return self.losses(loss, batch.data[predicted])

    def decoder(self, slots: int) -> Decoder:
        """A filter over the states of each slot's text."""
        return FilterDecoder(self.model.chain, self.model.natural.exp(), slots)

    def stream(
        self, rows: Iterator[Row], draw: Draws, sampling: SamplingParams
    ) -> Iterator[list[Finished]]:
        """Continue each row's prompt; numbers are sampled a micro-batch at a time."""
        if self.params.emissions == "gaussian":
            return Network.stream(self, rows, draw, sampling)
        return super().stream(rows, draw, sampling)

    def sample(self, rows: Sequence[Row], draw: Draw, sampling: SamplingParams) -> list[Output]:
        """As `stream`, in the rows' order."""
        if self.params.emissions == "discrete":
            return super().sample(rows, draw, sampling)
        if self.scale is None:
            raise RuntimeError("load_files() comes before sample(): the scale is missing")
        model, kind = self.model, cast(Gaussian, self.kind)
        if not torch.isfinite(model.natural).all():
            raise NonFinite("the model's means are not finite: its weights are damaged")
        first = torch.stack([self._state_after(row.text, self.scale) for row in rows])
        moments = kind.moments(model.emissions)
        settings = cast(HmmSampling, sampling)
        samples = sample_vectors(model.chain, moments, first, draw, settings).cpu().numpy()
        return [write_numbers(self.scale.undo(vectors)) for vectors in samples]

    @property
    def counts(self) -> Counts:
        """The weights."""
        return Counts(self.initial, self.transitions, self.emissions)

    @property
    def model(self) -> Model:
        """The distributions that the weights define."""
        return Model(self.counts, self.kind, self.params.prior)

    def _initialise(self, data: Tensor) -> None:
        settings = self.params
        seed = int(torch.randint(2**62, ()))  # from torch's generator, which the loop has seeded
        counts = initialise(
            data,
            self.kind,
            states=settings.states,
            prior=settings.prior,
            restarts=settings.restarts,
            seed=seed,
        )
        self._move(counts, 1.0)

    def _with_inherited(self, found: Counts, rate: float) -> Counts:
        """(1 - rate) inherited + rate found, the inherited scaled to as many transitions."""
        if self._inherited is None:
            return found
        scale = found.size / self._inherited.size.clamp(min=1)
        return self._inherited.times(scale * (1 - rate)).plus(found.times(rate))

    def _move(self, to: Counts, share: float) -> None:
        moved = self.counts.times(1 - share).plus(to.times(share))
        for weight, value in zip(self.parameters(), vars(moved).values(), strict=True):
            weight.copy_(value)

    def _state_after(self, prompt: str, scale: Scale) -> Tensor:
        """The distribution (K,) of the state after a prompt of numbers."""
        chain = self.model.chain
        if not prompt.strip():
            return chain.initial
        vectors = torch.from_numpy(scale.apply(parse_numbers(prompt))).to(self.initial.device)
        b, _ = self.kind.likelihoods(self.model.natural, vectors[None])
        return forward(chain, b).states[-1, 0] @ chain.transitions


def _fixed(*shape: int) -> nn.Parameter:
    """Weights without gradients; ones until training starts."""
    return nn.Parameter(torch.ones(shape, dtype=torch.float64), requires_grad=False)


NETWORK = HiddenMarkovModel
