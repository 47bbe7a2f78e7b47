"""What a family declares: parameters, data, and the files of its versions. No torch here."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from db.errors import NotSupportedHere
from worker.networks.formats import UPGRADE, Changes, Migration, Settings, steps_from
from worker.networks.params import SamplingParams, TrainingParams
from worker.networks.version_folder import format_of, made_by
from worker.specs import parse_params

if TYPE_CHECKING:
    from worker.networks.network import Network


MANY = 10  # times `few_steps`: of millions of items, less than an epoch can be enough


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

    def has_chat_template(
        self, names: Container[str], read: Callable[[str], Mapping[str, Any]]
    ) -> bool:
        """Whether a version of files `names`, of which `read` reads JSON, takes conversations."""

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
    few_steps: int = 200  # with fewer, a network trained from nothing has only begun to learn
    takes_images: bool = False  # also makes samples from a dataset of its medium
    trains: bool = True  # from scratch; if not, it only fine-tunes imported versions
    needs_captions: bool = False  # learns from captions, or labels' names where there are none
    files: tuple[KeptFile, ...] = ()  # beside weights and `config.json`
    foreign: str | None = None  # the library whose models can be imported; see `layout`
    migrations: tuple[Migration, ...] = ()  # from format 1 to 2, from 2 to 3, ...

    @property
    def format(self) -> int:
        """The number of the format that is written today."""
        return 1 + len(self.migrations)

    def is_short(self, steps: float, epochs: float | None) -> bool:
        """Whether a training from nothing of so many steps is too short to be good for anything.

        It has less than `few_steps`, or has not seen all of its data once in `MANY` times as many.
        None: the epochs are not known.
        """
        partial = epochs is not None and epochs < 1
        return steps < self.few_steps or (partial and steps < MANY * self.few_steps)

    @property
    def least(self) -> str:
        """What a training that is not short takes, and what a shorter one makes."""
        return (
            f"{self.name} needs about {self.few_steps:,} steps and an epoch at least: "
            "expect rough samples, or noise"
        )

    def steps_from(self, number: int, *, what: str) -> Sequence[Migration]:
        """The migrations that `what`, of format `number`, has still to make.

        Raises `NotSupportedHere` where there is no way from there to today's.
        """
        return steps_from(self.migrations, number, what=what)

    def training_settings(
        self, given: Mapping[str, Any], number: int, *, what: str, whole: bool = True
    ) -> Settings:
        """Training parameters of format `number` in today's. Raises as `steps_from`.

        If they are not `whole`, those left out come from elsewhere, as from a version's parent.
        """
        changes = [step.params for step in self.steps_from(number, what=what)]
        return _changed(given, changes, whole=whole)

    def sampling_settings(self, given: Mapping[str, Any], number: int, *, what: str) -> Settings:
        """Sampling settings of format `number` in today's. Raises as `steps_from`."""
        return _changed(given, [step.sampling for step in self.steps_from(number, what=what)])

    def read_params(self, record: Mapping[str, Any], *, what: str) -> TrainingParams:
        """The parameters in the record of a version's `config.json`, which errors call `what`.

        Raises `NotSupportedHere` for those that this Genmill does not know, and `Refused` for
        values outside the limits.
        """
        given = self.training_settings(record["params"], format_of(record), what=what)
        known = self.params.model_fields
        if strange := min(given.keys() - known.keys(), default=None):
            unknown = NotSupportedHere.unknown("parameter", strange, known, of=what)
            raise NotSupportedHere(
                f"{unknown.message}; it was made by {made_by(record) or 'another genmill'}",
                remedy=f"{UPGRADE}, if it is older than that one",
            )
        return parse_params(self.params, given, what=what)

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


def _changed(
    given: Mapping[str, Any], changes: Sequence[Changes], *, whole: bool = True
) -> Settings:
    settings = dict(given)
    for each in changes:
        settings = each.apply(settings, whole=whole)
    return settings
