"""`gpt`: a small causal transformer over characters or byte pairs, trained from scratch."""

from typing import Literal

from pydantic import Field, model_validator

from worker.networks.family import Family, KeptFile
from worker.networks.params import TextSampling, TrainingParams


class GptParams(TrainingParams):
    """The network and its training."""

    batch_size: int = Field(12, ge=1, le=65_536, description="windows of text a training step")
    lr: float = Field(6e-3, gt=0, le=1, description="peak learning rate")
    tokenizer: Literal["characters", "bpe"] = Field(
        "characters", description="what a token is: one character, or byte pairs of them"
    )
    vocabulary: int = Field(
        0,
        ge=0,
        le=65_536,
        description="largest number of tokens; 0: every character, or by the size of the text",
    )
    context: int = Field(128, ge=2, le=4096, description="tokens the network sees at once")
    layers: int = Field(4, ge=1, le=64, description="transformer blocks")
    heads: int = Field(4, ge=1, le=64, description="attention heads of a block")
    width: int = Field(
        128, ge=8, le=4096, description="features of a token; a multiple of 2 x heads"
    )
    activation: Literal["relu2", "swiglu"] = Field(
        "swiglu", description="of the feed-forward layers: ReLU squared, or the gated SiLU"
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="of residual branches; for small datasets")
    optimizer: Literal["muon", "adamw"] = Field(
        "muon", description="of the blocks' matrices; embedding and head always have AdamW"
    )
    weight_decay: float = Field(0.1, ge=0, le=10, description="of the blocks and the head")
    warmup: int = Field(
        100, ge=0, description="steps until the peak rate; at most a tenth of the budget"
    )
    clip: float = Field(1.0, gt=0, description="largest norm of a step's gradient")
    lora_rank: int = Field(
        0,
        ge=0,
        le=1024,
        description="in fine-tuning, train only changes of this rank to the blocks' matrices "
        "(LoRA), merged at the end; 0: train all weights; ignored in training from scratch",
    )
    lora_alpha: float = Field(
        32.0, gt=0, le=4096, description="LoRA changes are scaled by alpha / rank"
    )

    @model_validator(mode="after")
    def _heads_divide_width(self) -> "GptParams":
        if self.width % (2 * self.heads):
            raise ValueError(
                f"width {self.width} must be a multiple of 2 x heads ({2 * self.heads}), "
                "because a head rotates its features in pairs"
            )
        return self


FAMILY = Family(
    name="gpt",
    title="transformer language model, over characters or byte pairs",
    media="text",
    params=GptParams,
    sampling=TextSampling,
    takes_labels=False,
    takes_prompts=True,
    papers=(
        "Vaswani et al. 2017, Attention is all you need, arXiv:1706.03762",
        "Su et al. 2021, RoFormer (RoPE), arXiv:2104.09864",
        "Zhang, Sennrich 2019, Root mean square layer normalization, arXiv:1910.07467",
        "Henry et al. 2020, Query-key normalization, arXiv:2010.04245",
        "So et al. 2021, Primer (squared ReLU), arXiv:2109.08668",
        "Shazeer 2020, GLU variants improve transformer, arXiv:2002.05202",
        "Hu et al. 2021, LoRA: Low-rank adaptation of large language models, arXiv:2106.09685",
        "Jordan et al. 2024, Muon, https://kellerjordan.github.io/posts/muon",
        "Liu et al. 2025, Muon is scalable for LLM training, arXiv:2502.16982",
        "Holtzman et al. 2019, The curious case of neural text degeneration (top-p), "
        "arXiv:1904.09751",
    ),
    default_seconds=300,
    files=(KeptFile("tokenizer.json"),),
)
