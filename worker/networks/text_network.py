"""Parts that networks of text share: the feed, the tokenizer, losses a character."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Protocol, cast

import torch
from torch import Tensor

from db.errors import BadInput
from worker.data.dataset import TRAIN, LocalDataset
from worker.feeds.feed import Feed
from worker.feeds.tokenizer import Kind, Tokenizer, load_or_train_tokenizer, load_tokenizer
from worker.feeds.tokens import Texts
from worker.networks.decoding import Decoder, Slots
from worker.networks.inspection import Inspection
from worker.networks.network import Draws, Finished, Losses, Row, StreamingNetwork
from worker.networks.params import SamplingParams, TextSampling, TrainingParams

MakesFeed = Callable[..., Feed]  # (dataset, tokenizer, *, context, batch_size, seed)


def refuse_other_size(tokenizer: Tokenizer | None, vocabulary: int) -> None:
    """Raise `BadInput` where a tokenizer has not as many tokens as a network has embeddings."""
    if tokenizer is not None and tokenizer.size != vocabulary:
        raise BadInput(
            f"the tokenizer has {tokenizer.size} tokens, but the network has {vocabulary} "
            "embeddings",
            remedy="copy or export the whole folder again",
        )


class Tokenized(Protocol):
    """The parameters of training on tokens, as families declare them."""

    @property
    def batch_size(self) -> int:
        """Rows of a training step."""

    @property
    def context(self) -> int:
        """Tokens of a row."""

    @property
    def tokenizer(self) -> Kind:
        """What a token is."""

    @property
    def vocabulary(self) -> int:
        """The most tokens; 0: chosen by the text."""


class TextNetwork(StreamingNetwork):
    """A network that generates text token by token; a family provides the `decoder`."""

    makes_feed: ClassVar[MakesFeed]  # a feed's class, as `worker.feeds.tokens.TokenFeed`
    tokenizer: Tokenizer | None = None

    @classmethod
    def feed(cls, params: TrainingParams, dataset: LocalDataset, *, seed: int, files: Path) -> Feed:
        """Rows of tokens; `tokenizer.json` is read from `files`, or trained and written there."""
        settings = cast(Tokenized, params)
        kind, vocabulary = settings.tokenizer, settings.vocabulary
        return cls.makes_feed(
            dataset,
            load_or_train_tokenizer(files, Texts(dataset, TRAIN), kind=kind, vocabulary=vocabulary),
            context=settings.context,
            batch_size=settings.batch_size,
            seed=seed,
        )

    def load_files(self, folder: Path) -> None:
        """Read the tokenizer, which generating text needs."""
        self.tokenizer = load_tokenizer(folder)

    @property
    def tokenize(self) -> Callable[[str], Sequence[int]] | None:
        """See `Network`."""
        return self.tokenizer.encode if self.tokenizer else None

    def inspect(self) -> Inspection:
        """Refuse a tokenizer that the network was not trained with."""
        refuse_other_size(self.tokenizer, self.shape.vocabulary)
        return Inspection()

    def losses(self, loss: Tensor, predicted: Tensor) -> Losses:
        """`loss` in nats a token and, if the tokenizer is loaded, in nats a character.

        `loss` is the mean over the tokens `predicted` (N,).
        """
        if self.tokenizer is None:
            return {"loss": loss}
        pieces = self.tokenizer.pieces
        lengths = torch.tensor([len(piece) for piece in pieces], device=predicted.device)
        characters = lengths[predicted].sum().clamp(min=1)
        return {"loss": loss, "nats_per_character": loss * len(predicted) / characters}

    @abstractmethod
    def decoder(self, slots: int) -> Decoder:
        """A fresh decoder with this many slots."""

    def stream(
        self, rows: Iterator[Row], draw: Draws, sampling: SamplingParams
    ) -> Iterator[list[Finished]]:
        """Continue each row's prompt, `micro_batch` at once; the outputs are the continuations."""
        if self.tokenizer is None:
            raise RuntimeError("load_files() comes before stream(): the tokenizer is missing")
        decoder = self.decoder(sampling.micro_batch)
        device = next(self.parameters()).device
        slots = Slots(decoder, self.tokenizer, cast(TextSampling, sampling), device)
        return slots.decode(rows, draw)
