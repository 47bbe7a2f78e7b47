"""`rnn`: recurrent language models, LSTM or GRU, over characters, words or byte pairs."""

from typing import Literal

from pydantic import Field

from worker.networks.family import Family, KeptFile
from worker.networks.params import TextSampling, TrainingParams


class RnnParams(TrainingParams):
    """Training parameters of a recurrent language model."""

    batch_size: int = Field(
        32, ge=1, le=65_536, description="rows of text, one window each per step"
    )
    lr: float = Field(4e-3, gt=0, le=1, description="peak learning rate of AdamW")
    tokenizer: Literal["characters", "words", "bpe"] = Field(
        "characters", description="what a token is: a character, a word or a byte pair"
    )
    vocabulary: int = Field(
        0,
        ge=0,
        le=65_536,
        description="maximum number of tokens; 0: every character, or chosen by the text. Rarer "
        "words are unknown",
    )
    context: int = Field(
        64,
        ge=2,
        le=4096,
        description="tokens per window of backpropagation; the state carries over to the next",
    )
    cell: Literal["lstm", "gru"] = Field("lstm", description="the recurrent unit")
    layers: int = Field(1, ge=1, le=16, description="recurrent layers")
    width: int = Field(384, ge=8, le=8192, description="size of a layer's state")
    embedding: int = Field(
        128,
        ge=8,
        le=8192,
        description="size of a token's embedding, shared by input and output; projected if it "
        "differs from width",
    )
    dropout: float = Field(
        0.1, ge=0, lt=1, description="dropout between layers, with one mask per window"
    )
    optimizer: Literal["muon", "adamw"] = Field(
        "muon", description="of the layers' matrices; all other parameters use AdamW"
    )
    muon_lr: float = Field(0.01, gt=0, le=1, description="peak learning rate of Muon")
    weight_decay: float = Field(0.01, ge=0, le=10, description="weight decay of the matrices")
    warmup: float = Field(
        0.05,
        ge=0,
        lt=1,
        description="share of the budget until the peak rate, followed by a cosine",
    )
    clip: float = Field(1.0, gt=0, description="maximum gradient norm")


FAMILY = Family(
    name="rnn",
    title="recurrent language model (LSTM, GRU), over characters, words or byte pairs",
    media="text",
    params=RnnParams,
    sampling=TextSampling,
    takes_labels=False,
    takes_prompts=True,
    papers=(
        "Hochreiter, Schmidhuber 1997, Long short-term memory, Neural Computation 9(8)",
        "Cho et al. 2014, Learning phrase representations using RNN encoder-decoder (GRU), "
        "arXiv:1406.1078",
        "Williams, Peng 1990, An efficient gradient-based algorithm for on-line training of "
        "recurrent network trajectories, Neural Computation 2(4)",
        "Gal, Ghahramani 2015, A theoretically grounded application of dropout in recurrent "
        "neural networks, arXiv:1512.05287",
        "Press, Wolf 2016, Using the output embedding to improve language models, arXiv:1608.05859",
        "Jordan et al. 2024, Muon, https://kellerjordan.github.io/posts/muon",
        "Smith, Topin 2017, Super-convergence (one cycle), arXiv:1708.07120",
    ),
    default_seconds=180,
    files=(KeptFile("tokenizer.json"),),
)
