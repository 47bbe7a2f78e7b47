"""Generative adversarial networks for images, class-conditional where the data has labels."""

from typing import Literal

from pydantic import Field

from worker.families import Family, SamplingParams, TrainingParams


class Params(TrainingParams):
    """What training a GAN takes."""

    lr: float = Field(1e-3, gt=0, le=1, description="peak learning rate of both networks")
    arch: Literal["dcgan", "mlp"] = Field("dcgan", description="convolutional, or a plain MLP")
    loss: Literal["relativistic", "nonsaturating", "hinge"] = Field(
        "relativistic",
        description="Huang et al. 2024, Goodfellow et al. 2014, or Lim and Ye 2017",
    )
    r1: float = Field(
        1.0, ge=0, le=1000, description="weight of the R1 gradient penalty; 0 leaves it out"
    )
    r1_every: int = Field(
        4, ge=1, le=1000, description="steps between penalties, each weighted as many times"
    )
    latent: int = Field(64, ge=1, le=1024, description="numbers of noise a sample")
    channels: int = Field(32, ge=4, le=512, description="channels at the finest resolution")
    beta1: float = Field(0.0, ge=0, lt=1, description="Adam's decay of the mean")
    beta2: float = Field(0.99, ge=0, lt=1, description="Adam's decay of the square")
    ema: float = Field(0.999, ge=0, lt=1, description="decay of the generator's moving average")


class Sampling(SamplingParams):
    """What sampling a GAN takes."""

    truncation: float = Field(
        1.0, gt=0, le=2, description="scale of the noise: below 1 for fidelity at variety's cost"
    )


FAMILY = Family(
    name="gan",
    title="images by an adversarial pair, convolutional or MLP",
    media="image",
    params=Params,
    sampling=Sampling,
    takes_labels=True,
    takes_prompts=False,
    papers=(
        "Goodfellow et al. 2014, arXiv:1406.2661",
        "Radford, Metz, Chintala 2015, arXiv:1511.06434",
        "Miyato, Koyama 2018, arXiv:1802.05637",
        "Mescheder, Geiger, Nowozin 2018, arXiv:1801.04406",
        "Huang et al. 2024, arXiv:2501.05441",
    ),
    default_seconds=300,
)
