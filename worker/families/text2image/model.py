"""A small DALL-E in two stages: a codec turns images into tokens, a prior models the tokens.

Ramesh et al. 2021, arXiv:2102.12092. For an image x with tokens t and caption y, the loss is
-log p(x|t) - log p(t|y), an upper bound of -log p(x|y) (their eq. 1, for a deterministic encoder),
in nats per image.
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
from worker.families.text2image.prior import Prior
from worker.families.text2image.sampling import sample_tokens
from worker.feeds.images import CaptionFeed
from worker.feeds.tokenizer import FILE, Tokenizer, load_or_train_tokenizer, load_tokenizer
from worker.networks.images import to_pixels
from worker.networks.inspection import Inspection
from worker.networks.learning_rates import cosine, step
from worker.networks.network import Batch, Clock, Draw, Losses, Network, Output, Row
from worker.networks.params import SamplingParams, TrainingParams
from worker.networks.text_network import refuse_other_size

WARM_UP = 0.02  # share of the second stage until the peak rate
MAX_GRADIENT = 200.0  # norm at which the codec's gradients are clipped


class Text2Image(Network):
    """Codec and prior; the shape's `vocabulary` is that of the captions."""

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
        """Images with captions as tokens; writes `tokenizer.json` and `captions.json`."""
        settings = cast(Params, params)
        texts = captions.Captions(dataset)
        training = captions.TrainingCaptions(texts, dataset.array("split"))
        least = captions.load_caption_info(files).length if (files / FILE).exists() else 1
        kind, vocabulary = settings.tokenizer, settings.vocabulary
        tokenizer = load_or_train_tokenizer(files, training, kind=kind, vocabulary=vocabulary)
        most = settings.caption_length
        table = captions.encode_all(texts, tokenizer, least=least, most=most)
        captions.CaptionInfo(table.shape[1], captions.choose_examples(training)).save(files)
        size = settings.batch_size
        return CaptionFeed(dataset, table, vocabulary=tokenizer.size, batch_size=size, seed=seed)

    def load_files(self, folder: Path) -> None:
        """Read the tokenizer, the captions' length and the examples."""
        info = captions.load_caption_info(folder)
        self.tokenizer = load_tokenizer(folder)
        self.caption_length, self.examples = info.length, info.examples

    def inspect(self) -> Inspection:
        """Refuse a tokenizer that the network was not trained with."""
        refuse_other_size(self.tokenizer, self.shape.vocabulary)
        return Inspection()

    def begin_finetuning(self) -> None:
        """Freeze the codec, so that tokens keep their meaning."""
        self.codec.requires_grad_(requires_grad=False)

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Adam for the codec unless frozen; Muon for the prior's blocks, AdamW for its rest."""
        lr, decay = self.params.lr, self.params.weight_decay
        inner = [*self.prior.blocks.parameters()]
        outer = [p for name, p in self.prior.named_parameters() if not name.startswith("blocks.")]
        # updates as large as AdamW's (Liu et al. 2025), so both use one learning rate
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
        """`loss` in nats per image: `distortion` of the codec plus `rate` of the tokens."""
        decoded, _, tokens, _ = self.codec(batch.data)
        distortion = self.codec.distortion(decoded, batch.data)
        rate = self._nats(_captions(batch), tokens)
        return {"loss": distortion + rate, "distortion": distortion, "rate": rate}

    def sample(self, rows: Sequence[Row], draw: Draw, sampling: SamplingParams) -> list[Output]:
        """An image for each row's prompt; an unconditional one without a prompt."""
        if self.tokenizer is None:
            raise RuntimeError("load_files() comes before sample(): the tokenizer is missing")
        prompts = [captions.normalise(row.prompt or "") for row in rows]
        ids = [captions.encode(self.tokenizer, text, self.caption_length) for text in prompts]
        conditions = torch.tensor(ids, device=draw.device)  # (B, T)
        empty = torch.full_like(conditions[0], Tokenizer.end)
        numbers = draw.uniform(self.codec.tokens)  # (B, N)
        tokens = sample_tokens(self.prior, conditions, empty, numbers, cast(Sampling, sampling))
        return [*to_pixels(self.codec.decode(tokens))]

    @property
    def _frozen(self) -> bool:
        return not self.codec.log_scale.requires_grad

    def _train_codec(self, batch: Batch, optimizer: torch.optim.Optimizer, lr: float) -> Losses:
        decoded, z, tokens, penalty = self.codec(batch.data)
        distortion = self.codec.distortion(decoded, batch.data)
        (distortion + penalty).backward()
        nn.utils.clip_grad_norm_(self.codec.parameters(), MAX_GRADIENT)
        step(optimizer, lr)
        self.codec.quantiser.update(z.detach(), tokens, batch.draw)
        return {"distortion": distortion.detach(), "penalty": penalty.detach()}

    def _train_prior(
        self, batch: Batch, optimizers: Sequence[torch.optim.Optimizer], rate: float
    ) -> Losses:
        """Captions are dropped at random, so that the prior learns unconditional images too."""
        with torch.no_grad():
            tokens = self.codec.encode(batch.data)
        conditions = _captions(batch)
        dropped = batch.draw.uniform(len(conditions))[0] < self.params.drop  # (B,)
        loss = self._nats(conditions.masked_fill(dropped[:, None], Tokenizer.end), tokens)
        (loss / self.codec.tokens).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        size = nn.utils.clip_grad_norm_(self.prior.parameters(), self.params.clip)
        for optimizer in optimizers:
            step(optimizer, self.params.lr * rate)
        return {"rate": loss.detach(), "gradient_norm": size.detach()}

    def _nats(self, conditions: Tensor, tokens: Tensor) -> Tensor:
        """-log p(tokens | captions) in nats per image, averaged over the batch."""
        logits = self.prior(conditions, tokens)  # (B, N, V)
        summed = functional.cross_entropy(logits.flatten(0, 1), tokens.flatten(), reduction="sum")
        return summed / len(tokens)


def _captions(batch: Batch) -> Tensor:
    """A batch's captions as tokens, (B, T)."""
    if batch.labels is None:
        raise ValueError("the batch has no captions")
    return batch.labels


NETWORK = Text2Image
