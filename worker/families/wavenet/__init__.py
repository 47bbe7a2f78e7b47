"""`wavenet`: sounds by dilated causal convolutions, sample by sample; class-conditional."""

from typing import Self

from pydantic import Field

from worker.networks.family import Family, KeptFile
from worker.networks.params import SamplingParams, TrainingParams

PREVIEW_SECONDS = 0.4


class WaveNetParams(TrainingParams):
    """Training parameters of a WaveNet."""

    batch_size: int = Field(2, ge=1, le=65_536, description="windows of sound per training step")
    lr: float = Field(4e-3, gt=0, le=1, description="peak learning rate")
    context: int = Field(2048, ge=16, le=1_048_576, description="samples predicted per window")
    channels: int = Field(32, ge=4, le=1024, description="channels of the residual stream")
    skip: int = Field(96, ge=4, le=4096, description="channels of the skip connections")
    stacks: int = Field(2, ge=1, le=16, description="stacks of layers, each with all dilations")
    dilations: int = Field(
        9, ge=1, le=16, description="layers per stack, with dilations 1, 2, 4, ..."
    )
    warmup: int = Field(
        100, ge=0, description="steps until the peak rate, at most a tenth of the budget"
    )
    clip: float = Field(1.0, gt=0, description="maximum gradient norm")


class WaveNetSampling(SamplingParams):
    """Sampling parameters of a WaveNet."""

    seconds: float = Field(
        0.0,
        ge=0,
        le=600,
        description="maximum duration; 0: the 95th percentile of the data's, at most 1",
    )
    temperature: float = Field(
        1.0, gt=0, le=10, description="below 1: likelier samples, with less noise and less variety"
    )

    def for_preview(self) -> Self:
        """At most 0.4 seconds."""
        return self.model_copy(
            update={"seconds": min(self.seconds or PREVIEW_SECONDS, PREVIEW_SECONDS)}
        )


FAMILY = Family(
    name="wavenet",
    title="sounds by an autoregressive network of dilated convolutions",
    media="audio",
    params=WaveNetParams,
    sampling=WaveNetSampling,
    takes_labels=True,
    takes_prompts=False,
    papers=(
        "van den Oord et al. 2016, WaveNet, arXiv:1609.03499",
        "Le Paine et al. 2016, Fast WaveNet generation algorithm, arXiv:1611.09482",
    ),
    default_seconds=300,
    files=(KeptFile("sounds.json"),),
)
