"""`text2image`: pictures from captions, by picture tokens and a transformer over them."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from worker.networks.family import Family, KeptFile
from worker.networks.params import SamplingParams, Temperature, TopK, TopP, TrainingParams

Level = Annotated[int, Field(ge=2, le=256)]


class Params(TrainingParams):
    """The picture codec, the prior over its tokens, and how both are trained."""

    batch_size: int = Field(32, ge=1, le=65_536, description="pictures a training step")
    lr: float = Field(4e-3, gt=0, le=1, description="peak learning rate of the prior")
    codec_lr: float = Field(2e-3, gt=0, le=1, description="peak learning rate of the codec")
    first_stage: float = Field(
        0.15,
        gt=0,
        lt=1,
        description="part of the budget that trains the codec; then it is frozen, as it is from "
        "the start when fine-tuning",
    )
    quantiser: Literal["fsq", "vq"] = Field(
        "fsq", description="tokens by rounding to levels (FSQ), or by a learnt codebook (VQ-VAE)"
    )
    levels: list[Level] = Field(
        [8, 6, 5],
        min_length=1,
        max_length=16,
        description="of fsq: levels of each number of a token; their product is the vocabulary",
    )
    codes: int = Field(512, ge=2, le=65_536, description="of vq: size of the codebook")
    channels: int = Field(32, ge=4, le=512, description="of the codec at its finest resolution")
    tokenizer: Literal["bpe", "characters"] = Field(
        "bpe", description="a caption's tokens: byte pairs, most words being one, or characters"
    )
    vocabulary: int = Field(
        0, ge=0, le=65_536, description="the most caption tokens there are; 0: chosen by the data"
    )
    caption_length: int = Field(
        64,
        ge=1,
        le=1024,
        description="tokens of a caption at the most; a longer one, or one longer than any of the "
        "data, loses its end",
    )
    drop: float = Field(
        0.1, ge=0, lt=1, description="share of captions left out in training, for guidance"
    )
    layers: int = Field(4, ge=1, le=64, description="transformer blocks of the prior")
    heads: int = Field(4, ge=1, le=64, description="attention heads of a block")
    width: int = Field(128, ge=8, le=4096, description="features of a token; even parts per head")
    dropout: float = Field(0.0, ge=0, lt=1, description="of residual branches; for little data")
    weight_decay: float = Field(0.1, ge=0, le=10, description="of the prior's matrices")
    clip: float = Field(1.0, gt=0, description="the most that the prior's gradient norm may be")

    @model_validator(mode="after")
    def _fits(self) -> "Params":
        if self.width % self.heads:
            raise ValueError(f"width {self.width} must be a multiple of heads ({self.heads})")
        size = 1
        for level in self.levels:
            size *= level
        if size > 65_536:
            raise ValueError(f"levels {self.levels} make {size:,} tokens; at most 65,536 fit")
        return self


class Sampling(SamplingParams):
    """How pictures are drawn. Without a prompt they are unconditional."""

    guidance: float = Field(
        2.0,
        ge=0,
        le=20,
        description="how far beyond the unconditional the prompt pulls; 1: plainly conditional, "
        "0: the prompt is ignored, and pictures are of anything, as without one",
    )
    temperature: Temperature = 1.0
    top_k: TopK = 0
    top_p: TopP = 0.95


FAMILY = Family(
    name="text2image",
    title="pictures from captions (or labels' names), by picture tokens and a transformer",
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
