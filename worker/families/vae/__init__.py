"""Variational autoencoders for images, class-conditional where the data has labels."""

from pydantic import Field

from worker.families import Family, SamplingParams, TrainingParams


class Params(TrainingParams):
    """What training a VAE takes."""

    lr: float = Field(1e-3, gt=0, le=1, description="peak learning rate")
    latent: int = Field(32, ge=1, le=1024, description="numbers in the code of an image")
    channels: int = Field(32, ge=4, le=512, description="channels at the finest resolution")
    hidden: int = Field(256, ge=8, le=4096, description="width of the dense layers")
    beta: float = Field(1.0, ge=0, le=100, description="weight of the KL term, Higgins et al. 2017")
    warm_up: float = Field(
        0.2, ge=0, le=1, description="part of the budget in which beta rises from 0"
    )


class Sampling(SamplingParams):
    """What sampling a VAE takes."""

    temperature: float = Field(
        1.0, gt=0, le=2, description="scale of the code: below 1 for fidelity at variety's cost"
    )


FAMILY = Family(
    name="vae",
    title="images by a variational autoencoder, convolutional",
    media="image",
    params=Params,
    sampling=Sampling,
    takes_labels=True,
    takes_prompts=False,
    papers=(
        "Kingma, Welling 2013, arXiv:1312.6114",
        "Higgins et al. 2017, beta-VAE",
        "Rybkin, Daniilidis, Levine 2020, arXiv:2006.13202",
    ),
    default_seconds=180,
)
