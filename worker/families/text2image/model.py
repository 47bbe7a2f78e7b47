"""DALL-E's two stages, small: a codec makes pictures into tokens, a prior learns the tokens.

Ramesh et al. 2021, arXiv:2102.12092. With the tokens t of a picture x and its caption y,
-log p(x given t) - log p(t given y) bounds -log p(x given y) from above (their eq. 1, for an
encoder without noise), and is the loss, in nats a picture.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from worker.data.dataset import LocalDataset, Shape
from worker.families.text2image import Params, Sampling, captions
from worker.families.text2image.codec import Codec
from worker.families.text2image.drawing import draw_tokens
from worker.families.text2image.prior import Prior
from worker.feeds.images import CaptionFeed
from worker.feeds.tokenizer import FILE, Tokenizer, load_or_train_tokenizer, load_tokenizer
from worker.networks.images import to_pixels
from worker.networks.learning_rates import cosine, step
from worker.networks.network import Batch, Clock, Draw, Losses, Network, Output, Row
from worker.networks.params import SamplingParams, TrainingParams

WARM_UP = 0.02  # part of the second stage until its peak rate
MOST_GRADIENT = 200.0  # the norm beyond which an update of the codec is scaled down


class Text2Image(Network):
    """Codec and prior; the shape's `vocabulary` is the captions'."""

    params: Params

    def __init__(self, params: TrainingParams, shape: Shape) -> None:
        super().__init__(params, shape)
        self.codec = Codec(self.params, shape)
        self.prior = Prior(
            self.params,
            words=shape.vocabulary,
            tokens=self.codec.quantiser.size,
            grid=self.codec.grid,
        )
        self.stages = (0.0, self.params.first_stage)
        self.tokenizer: Tokenizer | None = None
        self.caption_length = 0  # tokens

    @classmethod
    def feed(
        cls, params: TrainingParams, dataset: LocalDataset, *, seed: int, files: Path
    ) -> CaptionFeed:
        """Images with captions as tokens; `tokenizer.json` and `captions.json` are kept."""
        settings = cast(Params, params)
        texts = captions.Captions(dataset)
        training = captions.TrainingCaptions(texts, dataset.array("split"))
        least = captions.load_kept(files).length if (files / FILE).exists() else 1
        kind, vocabulary = settings.tokenizer, settings.vocabulary
        tokenizer = load_or_train_tokenizer(files, training, kind=kind, vocabulary=vocabulary)
        most = settings.caption_length
        table = captions.encode_all(texts, tokenizer, least=least, most=most)
        captions.Kept(table.shape[1], captions.choose_examples(training)).save(files)
        size = settings.batch_size
        return CaptionFeed(dataset, table, vocabulary=tokenizer.size, batch_size=size, seed=seed)

    def load_files(self, folder: Path) -> None:
        """Read the tokenizer, the captions' length and the examples."""
        kept = captions.load_kept(folder)
        self.tokenizer = load_tokenizer(folder)
        self.caption_length, self.examples = kept.length, kept.examples

    def begin_finetuning(self) -> None:
        """The codec stays as it is, so that the tokens keep their meaning."""
        self.codec.requires_grad_(requires_grad=False)

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Adam for the codec, unless it is frozen; Muon for the prior's blocks; AdamW beside."""
        lr, decay = self.params.lr, self.params.weight_decay
        inner = [*self.prior.blocks.parameters()]
        outer = [p for name, p in self.prior.named_parameters() if not name.startswith("blocks.")]
        # scaled to the size of AdamW's updates (Liu et al. 2025), so one rate serves both
        scale = "match_rms_adamw"
        made: dict[str, torch.optim.Optimizer] = {
            "adamw": torch.optim.AdamW(
                outer, lr=lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True
            ),
            "muon": torch.optim.Muon(inner, lr=lr, weight_decay=decay, adjust_lr_fn=scale),
        }
        if not self._frozen:
            made["codec"] = torch.optim.Adam(
                self.codec.parameters(), lr=self.params.codec_lr, fused=True
            )
        return made

    def train_step(
        self, batch: Batch, optimizers: Mapping[str, torch.optim.Optimizer], clock: Clock
    ) -> Losses:
        """One update of the codec in the first stage, then of the prior."""
        first = 0.0 if self._frozen else self.params.first_stage
        self.zero_grad(set_to_none=True)
        if clock.progress < first:
            rate = clock.rate * cosine(clock.progress / first)
            return self._train_codec(batch, optimizers["codec"], self.params.codec_lr * rate)
        done = (clock.progress - first) / (1 - first)
        rate = clock.rate * min(1.0, 0.1 + done / WARM_UP) * cosine(done)
        return self._train_prior(batch, [optimizers["adamw"], optimizers["muon"]], rate)

    def validate(self, batch: Batch) -> Losses:
        """`loss` in nats a picture: `distortion` of the codec, and `rate` of the prior's tokens."""
        made, _, tokens, _ = self.codec(batch.data)
        distortion = self.codec.distortion(made, batch.data)
        rate = self._nats(_given(batch), tokens)
        return {"loss": distortion + rate, "distortion": distortion, "rate": rate}

    def sample(self, rows: Sequence[Row], draw: Draw, sampling: SamplingParams) -> list[Output]:
        """A picture for each row's prompt; without one, a picture of anything."""
        if self.tokenizer is None:
            raise RuntimeError("load_files() comes before sample(): the tokenizer is missing")
        prompts = [captions.tidy(row.prompt or "") for row in rows]
        ids = [captions.encode(self.tokenizer, text, self.caption_length) for text in prompts]
        given = torch.tensor(ids, device=draw.device)  # (B, T)
        nothing = torch.full_like(given[0], Tokenizer.end)
        numbers = draw.uniform(self.codec.tokens)  # (B, N)
        tokens = draw_tokens(self.prior, given, nothing, numbers, cast(Sampling, sampling))
        return [*to_pixels(self.codec.decode(tokens))]

    @property
    def _frozen(self) -> bool:
        """Whether the codec learns no more."""
        return not self.codec.log_scale.requires_grad

    def _train_codec(self, batch: Batch, optimizer: torch.optim.Optimizer, lr: float) -> Losses:
        made, z, tokens, penalty = self.codec(batch.data)
        distortion = self.codec.distortion(made, batch.data)
        (distortion + penalty).backward()
        nn.utils.clip_grad_norm_(self.codec.parameters(), MOST_GRADIENT)
        step(optimizer, lr)
        self.codec.quantiser.update(z.detach(), tokens, batch.draw)
        return {"distortion": distortion.detach(), "penalty": penalty.detach()}

    def _train_prior(
        self, batch: Batch, optimizers: Sequence[torch.optim.Optimizer], rate: float
    ) -> Losses:
        """Captions are dropped at random, so that the prior learns pictures of anything too."""
        with torch.no_grad():
            tokens = self.codec.encode(batch.data)
        given = _given(batch)
        dropped = batch.draw.uniform(len(given))[0] < self.params.drop  # (B,)
        loss = self._nats(given.masked_fill(dropped[:, None], Tokenizer.end), tokens)
        (loss / self.codec.tokens).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        size = nn.utils.clip_grad_norm_(self.prior.parameters(), self.params.clip)
        for optimizer in optimizers:
            step(optimizer, self.params.lr * rate)
        return {"rate": loss.detach(), "gradient_norm": size.detach()}

    def _nats(self, given: Tensor, tokens: Tensor) -> Tensor:
        """-log p(tokens given captions) in nats a picture, a mean over the batch."""
        logits = self.prior(given, tokens)  # (B, N, V)
        summed = functional.cross_entropy(logits.flatten(0, 1), tokens.flatten(), reduction="sum")
        return summed / len(tokens)


def _given(batch: Batch) -> Tensor:
    """A batch's captions as tokens, (B, T)."""
    if batch.labels is None:
        raise ValueError("a batch of captioned pictures has captions")
    return batch.labels


NETWORK = Text2Image
