"""Generative adversarial networks for images, class-conditional where the data has labels."""

from typing import Annotated, Literal

from pydantic import Field

from worker.complaints import matching
from worker.networks.family import Family
from worker.networks.params import SamplingParams, TrainingParams

Augmentation = Annotated[
    str,
    matching(
        r"none|(color|translation|cutout)(,(color|translation|cutout))*",
        "use none, or some of color, translation and cutout, separated by commas",
    ),
]


class Params(TrainingParams):
    """Training parameters of a GAN."""

    lr: float = Field(1e-3, gt=0, le=1, description="peak learning rate of both networks")
    discriminator_lr: float = Field(
        0.0,
        ge=0,
        le=1,
        description="the discriminator's peak learning rate, Heusel et al. 2017; 0: the same as lr",
    )
    arch: Literal["dcgan", "mlp"] = Field("dcgan", description="convolutional or MLP")
    loss: Literal["nonsaturating", "hinge", "wgan-gp", "relativistic"] = Field(
        "nonsaturating",
        description="Goodfellow et al. 2014, Lim and Ye 2017, Gulrajani et al. 2017, or "
        "Huang et al. 2024 (R3GAN: set r2 as well)",
    )
    r1: float = Field(
        10.0,
        ge=0,
        le=1000,
        description="weight of the gradient penalty on real images, Mescheder et al. 2018; "
        "0: none; wgan-gp never uses it",
    )
    r2: float = Field(
        0.0, ge=0, le=1000, description="weight of the same penalty on generated images; 0: none"
    )
    gradient_penalty: float = Field(
        10.0, ge=0, le=1000, description="weight of wgan-gp's own penalty, on interpolated images"
    )
    penalty_every: int = Field(
        4,
        ge=1,
        le=1000,
        description="steps between penalties, whose weight is multiplied by as many",
    )
    spectral_norm: bool = Field(
        False, description="spectral normalisation of the discriminator, Miyato et al. 2018"
    )
    minibatch_stddev: bool = Field(
        False,
        description="show the discriminator its batch's standard deviation, Karras et al. 2018",
    )
    augment: Augmentation = Field(
        "none",
        description="DiffAugment of the discriminator's input, for at most a few thousand images: "
        "none, or some of color,translation,cutout; Zhao et al. 2020",
    )
    freeze_discriminator: int = Field(
        1,
        ge=0,
        le=32,
        description="lowest layers of the discriminator that fine-tuning freezes, Mo et al. 2020",
    )
    latent: int = Field(64, ge=1, le=1024, description="dimensions of the latent noise")
    channels: int = Field(32, ge=4, le=512, description="channels at the finest resolution")
    beta1: float = Field(0.0, ge=0, lt=1, description="Adam's decay rate of the first moment")
    beta2: float = Field(0.99, ge=0, lt=1, description="Adam's decay rate of the second moment")
    ema: float = Field(0.999, ge=0, lt=1, description="decay of the generator's moving average")


class Sampling(SamplingParams):
    """Sampling parameters of a GAN."""

    truncation: float = Field(
        1.0, gt=0, le=2, description="scale of the noise; below 1: higher fidelity, less variety"
    )


FAMILY = Family(
    name="gan",
    title="images by a generative adversarial network, convolutional or MLP",
    media="image",
    params=Params,
    sampling=Sampling,
    takes_labels=True,
    takes_prompts=False,
    papers=(
        "Goodfellow et al. 2014, arXiv:1406.2661",
        "Radford, Metz, Chintala 2015, arXiv:1511.06434",
        "Lim, Ye 2017, arXiv:1705.02894",
        "Gulrajani et al. 2017, arXiv:1704.00028",
        "Heusel et al. 2017, arXiv:1706.08500",
        "Karras et al. 2018, arXiv:1710.10196",
        "Miyato et al. 2018, arXiv:1802.05957",
        "Miyato, Koyama 2018, arXiv:1802.05637",
        "Mescheder, Geiger, Nowozin 2018, arXiv:1801.04406",
        "Yazici et al. 2018, arXiv:1806.04498",
        "Mo, Cho, Shin 2020, arXiv:2002.10964",
        "Zhao et al. 2020, arXiv:2006.10738",
        "Huang et al. 2024, arXiv:2501.05441",
    ),
    default_seconds=300,
)
