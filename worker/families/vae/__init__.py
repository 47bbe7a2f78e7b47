"""Variational autoencoders for images, class-conditional where the data has labels."""

from typing import Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from db.errors import Refused
from worker.networks.family import Family
from worker.networks.params import SamplingParams, TrainingParams

Box = tuple[int, int, int, int]


class Params(TrainingParams):
    """Training parameters of a VAE."""

    batch_size: int = Field(128, ge=1, le=65_536, description="samples per training step")
    lr: float = Field(2e-3, gt=0, le=1, description="peak learning rate")
    arch: Literal["conv", "mlp"] = Field("conv", description="convolutional or residual MLP")
    latent: int = Field(32, ge=1, le=1024, description="dimensions of an image's latent code")
    channels: int = Field(32, ge=4, le=512, description="conv: channels at the finest resolution")
    hidden: int = Field(256, ge=8, le=4096, description="width of the dense layers")
    layers: int = Field(2, ge=1, le=32, description="mlp: residual layers of each network")
    conditional: bool = Field(True, description="condition on labels if the data has them")
    likelihood: Literal["auto", "bernoulli", "logistic"] = Field(
        "auto",
        description="of pixels: Bernoulli, or discretised logistic of learnt scale (Kingma et al. "
        "2016); auto: bernoulli for grey images, logistic for colour",
    )
    binarise: Literal["none", "threshold", "stochastic"] = Field(
        "none",
        description="make pixels 0 or 1, by a threshold of one half or at random by brightness "
        "(Salakhutdinov and Murray 2008); none: bernoulli reads brightness as a probability",
    )
    beta: float = Field(1.0, ge=0, le=100, description="weight of the KL term, Higgins et al. 2017")
    warm_up: float = Field(
        0.2, ge=0, le=1, description="share of the budget in which beta rises from 0"
    )
    free_bits: float = Field(
        0.0,
        ge=0,
        le=100,
        description="nats per latent dimension, averaged over a batch, that the KL term does not "
        "penalise (Kingma et al. 2016, eq. 15)",
    )
    iwae_samples: int = Field(
        10,
        ge=1,
        le=10_000,
        description="samples per image in the IWAE bound of the final validation",
    )

    @model_validator(mode="after")
    def _binary_pixels_are_bernoulli(self) -> "Params":
        if self.binarise != "none" and self.likelihood == "logistic":
            raise PydanticCustomError(
                "likelihood", "binarised pixels need likelihood=bernoulli, not logistic"
            )
        return self


class Sampling(SamplingParams):
    """Sampling parameters of a VAE."""

    temperature: float = Field(
        1.0,
        gt=0,
        le=2,
        description="scale of the latent code; below 1: higher fidelity, less variety",
    )
    mode: Literal["sample", "interpolate", "reconstruct", "inpaint"] = Field(
        "sample",
        description="interpolate: between pairs of latent codes, or of images of --dataset; "
        "reconstruct: encode and decode the images of --dataset; inpaint: fill in part of them",
    )
    steps: int = Field(
        10, ge=2, le=1000, description="interpolate: samples per pair, both ends included"
    )
    mask: Box | None = Field(
        None, description="inpaint: the box to fill in, [left, top, right, bottom] in pixels"
    )
    rounds: int = Field(
        20,
        ge=1,
        le=1000,
        description="inpaint: rounds of encoding and decoding, Rezende et al. 2014",
    )

    @model_validator(mode="after")
    def _mask_is_a_box(self) -> "Sampling":
        if self.mode == "inpaint" and self.mask is None:
            raise PydanticCustomError(
                "mask", "mode=inpaint needs mask=[left, top, right, bottom] in pixels"
            )
        if self.mask is not None:
            left, top, right, bottom = self.mask
            if not (0 <= left < right and 0 <= top < bottom):
                raise PydanticCustomError(
                    "mask",
                    "a mask is [left, top, right, bottom] with left < right and top < bottom",
                )
        return self

    @property
    def samples_per_label(self) -> int:
        """All samples of an interpolation are of one class."""
        return self.steps if self.mode == "interpolate" else 1

    def source_indices(self, index: int) -> tuple[int, ...]:
        """The images 2k and 2k + 1 are the ends of interpolation k."""
        pair = index // self.steps
        return (2 * pair, 2 * pair + 1) if self.mode == "interpolate" else (index,)

    def check_images(self, size: int | None) -> None:
        """Refuse images for modes that take none, modes without their images, and masks outside."""
        if size is None and self.mode in ("reconstruct", "inpaint"):
            raise Refused(f"mode={self.mode} needs images", remedy="name them with --dataset")
        if size is not None and self.mode == "sample":
            raise Refused(
                "mode=sample takes no images",
                remedy="omit --dataset, or set mode to reconstruct, inpaint or interpolate",
            )
        if size is not None and self.mask is not None and max(self.mask) > size:
            raise Refused(f"mask {list(self.mask)} extends beyond the images of {size}x{size}")


FAMILY = Family(
    name="vae",
    title="images by a variational autoencoder, convolutional or MLP",
    media="image",
    params=Params,
    sampling=Sampling,
    takes_labels=True,
    takes_prompts=False,
    takes_images=True,
    papers=(
        "Kingma, Welling 2013, arXiv:1312.6114",
        "Rezende, Mohamed, Wierstra 2014, arXiv:1401.4082",
        "Burda, Grosse, Salakhutdinov 2015, arXiv:1509.00519",
        "Kingma et al. 2016, arXiv:1606.04934",
        "Higgins et al. 2017, beta-VAE",
        "Salimans et al. 2017, arXiv:1701.05517",
    ),
    default_seconds=180,
)
