"""What a family declares: parameters, data, and the files of its versions. No torch here."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from worker.networks.params import SamplingParams, TrainingParams

if TYPE_CHECKING:
    from worker.networks.network import Network


@dataclass(frozen=True)
class KeptFile:
    """A file that a version keeps beside `config.json` and its weights, such as a tokenizer."""

    name: str
    needed: Callable[[Any], bool] = lambda _: True  # whether a version of given parameters has it


class ForeignLayout(Protocol):
    """How another library lays out a model's folder, and how such a folder becomes a version.

    Folders come from strangers: nothing in them is run, names are plain, weights are safetensors.
    """

    config_key: str  # that its `config.json` always has

    def recognises(self, config: Mapping[str, Any]) -> bool:
        """Whether a folder's `config.json` is that library's."""

    def files(self, folder: Path, config: Mapping[str, Any]) -> list[str]:
        """The names of the files to import besides `config.json`, weights first.

        Raises `BadInput` where the folder is incomplete or holds something that is not accepted.
        """

    def record(
        self, folder: Path, config: Mapping[str, Any], digests: Mapping[str, str]
    ) -> dict[str, Any]:
        """Genmill's record of the model: `params`, `shape`, and keys of the family's own.

        `digests` are the files' SHA-256s by name.
        """

    def library(self, names: Container[str]) -> str:
        """The library that reads a folder of these files, by its name on the Hugging Face Hub."""

    def merge(self, folder: Path) -> None:
        """Merge a version's adapter into the weights of its base; `Refused` where it has none."""


@dataclass(frozen=True)
class Family:
    """The declaration of one family."""

    name: str
    title: str  # one line for people
    media: str  # the medium that it learns from and makes
    params: type[TrainingParams]
    sampling: type[SamplingParams]
    takes_labels: bool
    takes_prompts: bool
    papers: tuple[str, ...]  # "Radford, Metz, Chintala 2015, arXiv:1511.06434"
    default_seconds: float  # the training budget where a job states none
    takes_images: bool = False  # also makes samples from a dataset of its medium
    trains: bool = True  # from scratch; if not, it only fine-tunes imported versions
    needs_captions: bool = False  # learns from captions, or labels' names where there are none
    files: tuple[KeptFile, ...] = ()  # beside weights and `config.json`
    foreign: str | None = None  # the library whose models can be imported; see `layout`

    def network(self) -> type[Network]:
        """Import the family's network class, and with it torch."""
        module = importlib.import_module(f"worker.families.{self.name}.model")
        network: type[Network] = module.NETWORK
        return network

    def layout(self) -> ForeignLayout | None:
        """Import the layout of the `foreign` library's folders; None where there is none."""
        if self.foreign is None:
            return None
        module = importlib.import_module(f"worker.families.{self.name}.layout")
        layout: ForeignLayout = module.LAYOUT
        return layout
