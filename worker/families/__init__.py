"""The families: one folder a kind of model, found by folder. No torch here.

A family's `__init__.py` declares `FAMILY`, a `Family`: its parameters, its sampling settings and
what data it takes. Its `model.py` holds the network (see `worker.families.network.Network`), which
is imported only where it runs.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field

from db.errors import NotFound, unknown
from worker.specs import Params

if TYPE_CHECKING:
    from worker.families.network import Network


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


@dataclass(frozen=True)
class Family:
    """The declaration of one family."""

    name: str
    title: str  # one line for people
    media: str  # image | text | audio: what it learns from and makes
    params: type[TrainingParams]
    sampling: type[SamplingParams]
    takes_labels: bool
    takes_prompts: bool
    papers: tuple[str, ...]  # "Radford, Metz, Chintala 2015, arXiv:1511.06434"
    default_seconds: float  # the training budget where a job states none
    takes_images: bool = False  # makes samples from given ones
    trains: bool = True  # from nothing; else only by going on from an imported version
    needs_captions: bool = False  # learns from captions; labels' names serve where there are none

    def network(self) -> type[Network]:
        """Import the family's network class, and with it torch."""
        module = importlib.import_module(f"{__name__}.{self.name}.model")
        network: type[Network] = module.NETWORK
        return network


def own_record(config: dict[str, Any]) -> dict[str, Any]:
    """Genmill's part of a `config.json`: all of it, or what lies under `genmill`."""
    inner = config.get("genmill")
    return inner if isinstance(inner, dict) else config


@cache
def families() -> dict[str, Family]:
    """Every family found, by name."""
    found = (
        importlib.import_module(f"{__name__}.{module.name}").FAMILY
        for module in pkgutil.iter_modules(__path__)
        if module.ispkg
    )
    return {family.name: family for family in sorted(found, key=lambda family: family.name)}


def find_family(name: str) -> Family:
    """The family called `name`; `NotFound` with the nearest spelling where there is none."""
    try:
        return families()[name]
    except KeyError:
        raise NotFound(unknown("family", name, families())) from None
