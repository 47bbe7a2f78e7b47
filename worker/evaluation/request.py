"""What is evaluated, and what an evaluation results in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy.typing as npt
from PIL import Image

from worker.data.dataset import LocalDataset
from worker.evaluation.judge import Judge
from worker.evaluation.numbers import Numbers
from worker.evaluation.protocol import Protocol
from worker.networks.family import Family
from worker.networks.network import Network
from worker.networks.params import SamplingParams

Curves = Mapping[str, Sequence[tuple[int, float]]]


@dataclass(frozen=True)
class Request:
    """A version to measure, and the empty folder to work in."""

    name: str  # NAME:VERSION
    family: Family
    network: Network
    sampling: SamplingParams
    dataset: LocalDataset
    protocol: Protocol
    folder: Path
    files: Path  # the version's own, read only
    judge: Judge | None = None  # of pictures
    judge_metrics: Mapping[str, Any] = field(default_factory=dict)
    curves: Curves = field(default_factory=dict)  # of the job that trained the version


@dataclass(frozen=True)
class Exhibit:
    """A part of the report for people: a picture, sounds and texts, or some of these."""

    title: str
    note: str = ""
    picture: Image.Image | None = None
    sounds: Sequence[tuple[str, bytes]] = ()  # heading and WAV file
    texts: Sequence[tuple[str, str]] = ()  # heading and text


@dataclass(frozen=True)
class Measured:
    """Numbers, arrays with the items on axis 0, and what the report shows."""

    numbers: Numbers
    items: Mapping[str, npt.NDArray[Any]]
    exhibits: Sequence[Exhibit]
