"""`hf`: any causal language model in the layout of `transformers`, fine-tuned by LoRA.

The base comes by `genmill model import DIR`; it is never changed. A version made by fine-tuning is
an adapter of a few per cent of its size, and names the base's files as its own.
"""

from typing import Annotated, Literal

from pydantic import Field

from worker.networks.family import Family
from worker.networks.params import TextSampling, TrainingParams

Chat = Literal["auto", "never"]

CHAT = "auto: by the tokenizer's chat template where it has one; never: texts as they are"


class HfParams(TrainingParams):
    """How the base is held, the adapter, and its training."""

    batch_size: int = Field(16, ge=1, le=65_536, description="packed rows a training step")
    micro_batch: int = Field(
        4, ge=1, le=65_536, description="rows at once; a step's gradients are summed over them"
    )
    lr: float = Field(2e-4, gt=0, le=1, description="peak learning rate")
    finetune_rate: float = Field(1.0, gt=0, le=1, description="share of lr that is used")
    context: int = Field(
        1024, ge=8, le=1_048_576, description="tokens of a packed row; longer examples are cut"
    )
    packing: bool = Field(
        True, description="several examples in one row, none of which sees another"
    )
    chat: Chat = Field("auto", description=CHAT)
    rank: int = Field(16, ge=1, le=1024, description="of the adapter's matrices (LoRA's r)")
    alpha: float = Field(32, gt=0, le=4096, description="the adapter counts alpha / rank times")
    dropout: float = Field(0.0, ge=0, lt=1, description="of what the adapter reads")
    targets: list[Annotated[str, Field(min_length=1)]] = Field(
        [], max_length=64, description="names of the layers to adapt; none: all linear but the head"
    )
    base: Literal["fp32", "bf16", "nf4"] = Field(
        "fp32", description="how the base is held; nf4 (QLoRA) needs CUDA and bitsandbytes"
    )
    checkpointing: bool = Field(
        False, description="compute activations again in place of keeping them: slower, smaller"
    )
    weight_decay: float = Field(0.0, ge=0, le=10, description="of the adapter")
    warmup: int = Field(
        10, ge=0, description="steps until the peak rate; a tenth of the budget at the most"
    )
    clip: float = Field(1.0, gt=0, description="the most that a step's gradient norm may be")


class HfSampling(TextSampling):
    """How text is chosen, and how a prompt is put to the model."""

    micro_batch: int = Field(
        8, ge=1, le=4096, description="texts made at once; part of what makes bytes repeatable"
    )
    chat: Chat = Field("auto", description=CHAT)
    system: str = Field(
        "", max_length=20_000, description="a system message before each prompt, with a template"
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
