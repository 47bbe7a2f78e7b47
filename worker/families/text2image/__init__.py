"""`text2image`: images from captions, by image tokens and a transformer over them."""

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from worker.networks.family import Family, KeptFile
from worker.networks.params import SamplingParams, Temperature, TopK, TopP, TrainingParams

Level = Annotated[int, Field(ge=2, le=256)]


class Params(TrainingParams):
    """Training parameters of the image codec and of the prior over its tokens."""

    batch_size: int = Field(32, ge=1, le=65_536, description="images per training step")
    lr: float = Field(4e-3, gt=0, le=1, description="peak learning rate of the prior")
    codec_lr: float = Field(2e-3, gt=0, le=1, description="peak learning rate of the codec")
    first_stage: float = Field(
        0.15,
        gt=0,
        lt=1,
        description="share of the budget that trains the codec, which is then frozen; fine-tuning "
        "freezes it from the start",
    )
    quantiser: Literal["fsq", "vq"] = Field(
        "fsq", description="fsq: tokens by rounding to levels; vq: by a learnt codebook (VQ-VAE)"
    )
    levels: list[Level] = Field(
        [8, 6, 5],
        min_length=1,
        max_length=16,
        description="fsq: levels of each latent dimension; their product is the vocabulary",
    )
    codes: int = Field(512, ge=2, le=65_536, description="vq: size of the codebook")
    channels: int = Field(
        32, ge=4, le=512, description="channels of the codec at the finest resolution"
    )
    tokenizer: Literal["bpe", "characters"] = Field(
        "bpe",
        description="what a caption token is: a byte pair (mostly a whole word) or a character",
    )
    vocabulary: int = Field(
        0,
        ge=0,
        le=65_536,
        description="maximum number of different caption tokens; 0: chosen by the data",
    )
    caption_length: int = Field(
        64,
        ge=1,
        le=1024,
        description="maximum tokens per caption; longer ones, and prompts longer than any caption "
        "of the data, are truncated",
    )
    drop: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="share of captions dropped in training, for classifier-free guidance",
    )
    layers: int = Field(4, ge=1, le=64, description="transformer blocks of the prior")
    heads: int = Field(4, ge=1, le=64, description="attention heads per block")
    width: int = Field(128, ge=8, le=4096, description="model width; a multiple of heads")
    dropout: float = Field(
        0.0, ge=0, lt=1, description="dropout of residual branches, for small datasets"
    )
    weight_decay: float = Field(
        0.1, ge=0, le=10, description="weight decay of the prior's matrices"
    )
    clip: float = Field(1.0, gt=0, description="maximum gradient norm of the prior")

    @model_validator(mode="after")
    def _fits(self) -> "Params":
        if self.width % self.heads:
            raise ValueError(f"width {self.width} must be a multiple of heads ({self.heads})")
        size = math.prod(self.levels)
        if size > 65_536:
            raise ValueError(
                f"levels {self.levels} make {size:,} tokens; at most 65,536 are allowed"
            )
        return self


class Sampling(SamplingParams):
    """Sampling parameters; images without a prompt are unconditional."""

    guidance: float = Field(
        2.0,
        ge=0,
        le=20,
        description="scale of classifier-free guidance; 1: none, 0: the prompt is ignored",
    )
    temperature: Temperature = 1.0
    top_k: TopK = 0
    top_p: TopP = 0.95


FAMILY = Family(
    name="text2image",
    title="images from captions (or labels' names), by image tokens and a transformer",
    media="image",
    params=Params,
    sampling=Sampling,
    takes_labels=False,
    takes_prompts=True,
    needs_captions=True,
    papers=(
        "Ramesh et al. 2021, Zero-shot text-to-image generation (DALL-E), arXiv:2102.12092",
        "Mentzer et al. 2023, Finite scalar quantization, arXiv:2309.15505",
        "van den Oord, Vinyals, Kavukcuoglu 2017, VQ-VAE, arXiv:1711.00937",
        "Ho, Salimans 2022, Classifier-free diffusion guidance, arXiv:2207.12598",
        "Jordan et al. 2024, Muon, https://kellerjordan.github.io/posts/muon",
    ),
    default_seconds=600,
    files=(KeptFile("tokenizer.json"), KeptFile("captions.json")),
)
