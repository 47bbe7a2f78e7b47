"""The settings that every family takes; a family's own extend them. No torch here."""

from typing import Self

from pydantic import Field

from worker.specs import Params


class TrainingParams(Params):
    """What every family's training takes; a family's own parameters extend it."""

    batch_size: int = Field(64, ge=1, le=65_536, description="samples a training step")
    lr: float = Field(1e-3, gt=0, le=1, description="peak learning rate")
    finetune_rate: float = Field(
        0.1, gt=0, le=1, description="share of lr when going on from a version"
    )
    validate_every: int = Field(
        0,
        ge=0,
        description="steps between validations; 0: about ten in a job, never under 50 steps",
    )
    preview_every: int = Field(
        0, ge=0, description="steps between previews; 0: about four in a job"
    )


class SamplingParams(Params):
    """What every family's sampling takes; a family's own settings extend it."""

    micro_batch: int = Field(
        64, ge=1, le=4096, description="samples made at once; part of what makes bytes repeatable"
    )

    @property
    def together(self) -> int:
        """How many samples in a row take one label, where labels are taken in turn."""
        return 1

    def sources(self, index: int) -> tuple[int, ...]:
        """The places, among the given images, of those that sample `index` is made from."""
        return (index,)

    def quick(self) -> Self:
        """The same for a look while training goes on, where long samples would take its time."""
        return self

    def check_images(self, size: int | None) -> None:
        """Raise `Refused` where these settings do not go with given images of `size` pixels a side,
        or with None, which says that no images are given.
        """
