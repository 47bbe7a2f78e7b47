"""The declaration of a family: its parameters, its sampling settings and what data it takes."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from worker.networks.params import SamplingParams, TrainingParams

if TYPE_CHECKING:
    from worker.networks.network import Network


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
        module = importlib.import_module(f"worker.families.{self.name}.model")
        network: type[Network] = module.NETWORK
        return network
