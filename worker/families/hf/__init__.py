"""`hf`: any causal language model in the layout of `transformers`, fine-tuned by LoRA.

`genmill model import DIR` imports the base, which is never changed. Fine-tuning makes a version of
an adapter, a few per cent of the base's size, and the base's own files.
"""

from typing import Annotated, Literal

from pydantic import Field

from worker.networks.family import Family
from worker.networks.params import TextSampling, TrainingParams

Chat = Literal["auto", "never"]

CHAT = "auto: use the tokenizer's chat template if it has one; never: use plain text"


class HfParams(TrainingParams):
    """How the base is precision, the adapter, and its training."""

    batch_size: int = Field(16, ge=1, le=65_536, description="packed rows a training step")
    micro_batch: int = Field(
        4, ge=1, le=65_536, description="rows of one forward; a step sums their gradients"
    )
    lr: float = Field(2e-4, gt=0, le=1, description="peak learning rate")
    finetune_rate: float = Field(1.0, gt=0, le=1, description="share of lr that fine-tuning uses")
    context: int = Field(
        1024, ge=8, le=1_048_576, description="tokens of a packed row; longer examples are cut"
    )
    packing: bool = Field(
        True,
        description="pack several examples into one row, where none sees another; an import turns "
        "it off for an architecture that mixes them",
    )
    chat: Chat = Field("auto", description=CHAT)
    rank: int = Field(16, ge=1, le=1024, description="rank of the adapter's matrices (LoRA's r)")
    alpha: float = Field(32, gt=0, le=4096, description="the adapter is scaled by alpha / rank")
    dropout: float = Field(0.0, ge=0, lt=1, description="of the adapter's input")
    targets: list[Annotated[str, Field(min_length=1)]] = Field(
        [],
        max_length=64,
        description="names of the layers to adapt; none: all linear layers but the head; an import "
        "names those of an architecture where some cannot be adapted",
    )
    base: Literal["fp32", "bf16", "nf4"] = Field(
        "fp32", description="precision of the base; nf4 (QLoRA) needs CUDA and bitsandbytes"
    )
    checkpointing: bool = Field(
        False, description="recompute activations instead of keeping them: slower, less memory"
    )
    weight_decay: float = Field(0.0, ge=0, le=10, description="of the adapter")
    warmup: int = Field(
        10, ge=0, description="steps until the peak rate; at most a tenth of the budget"
    )
    clip: float = Field(1.0, gt=0, description="largest norm of a step's gradient")


class HfSampling(TextSampling):
    """How tokens are chosen, and how a prompt is presented to the model."""

    micro_batch: int = Field(
        8, ge=1, le=4096, description="texts made at once; part of what makes bytes repeatable"
    )
    chat: Chat = Field("auto", description=CHAT)
    system: str = Field(
        "",
        max_length=20_000,
        description="a system message before each prompt; needs a chat template",
    )


FAMILY = Family(
    name="hf",
    title="any causal language model of transformers, with LoRA adapters",
    media="text",
    params=HfParams,
    sampling=HfSampling,
    takes_labels=False,
    takes_prompts=True,
    papers=(
        "Wolf et al. 2020, Transformers: state-of-the-art natural language processing, "
        "arXiv:1910.03771",
        "Hu et al. 2021, LoRA: low-rank adaptation of large language models, arXiv:2106.09685",
        "Dettmers et al. 2023, QLoRA: efficient finetuning of quantized LLMs, arXiv:2305.14314",
        "Krell et al. 2021, Efficient sequence packing without cross-contamination, "
        "arXiv:2107.02027",
    ),
    default_seconds=600,
    trains=False,
    foreign="transformers",
)
