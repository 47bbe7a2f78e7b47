"""A dataset version on this machine, and its shape."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from db.errors import BadInput, NotSupportedHere

TRAIN, VALIDATION, TEST = 0, 1, 2  # the codes in `split.npy`
CAPTIONS = "captions.jsonl"
DOCUMENTS = "documents.jsonl"


@dataclass(frozen=True)
class Shape:
    """What a network needs to know of a dataset; kept in a model version's `config.json`.

    Images: `size` (height and width) and `channels` (1 or 3). Text: `vocabulary`, the number of
    tokens. Sound: `sample_rate` in Hz. `labels`: the class names in order, none if unlabelled.
    """

    media: str
    labels: tuple[str, ...] = ()
    size: int = 0
    channels: int = 0
    vocabulary: int = 0
    sample_rate: int = 0

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self) | {"labels": list(self.labels)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Shape":
        """The inverse of `to_json`.

        Raises `NotSupportedHere` for what this Genmill does not know of, `BadInput` if it is none.
        """
        if strange := sorted(data.keys() - {each.name for each in fields(cls)}):
            raise NotSupportedHere(
                f"a shape with {', '.join(strange)} was made by a newer genmill",
                remedy="upgrade genmill",
            )
        try:
            return cls(**(data | {"labels": tuple(data["labels"])}))
        except (KeyError, TypeError):
            raise BadInput("a shape without its labels or its medium is none") from None


@dataclass(frozen=True)
class LocalDataset:
    """A dataset version's objects in a local folder, with their digests checked.

    Images: `images.npy` uint8 (N, H, W, C), `split.npy` uint8 (N,), `labels.npy` int64 (N,) if
    labelled, `captions.jsonl` if captioned, with a row `{"text": ...}` for each image. Text:
    `documents.jsonl`, whose rows have `split` and either `text`, or `prompt` and `completion`, or
    `messages` and perhaps `tools` (`worker.conversations`). Sound: `sounds.npy` int16 (T,), the
    samples of all sounds; `offsets.npy` int64 (N + 1,), where each begins and ends in it;
    `split.npy` and `labels.npy` as for images.
    `manifest.json` names them all.
    """

    folder: Path

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """The version's manifest: `kind`, `labels`, `counts`, `shape`, `objects`, `source`."""
        loaded: dict[str, Any] = json.loads((self.folder / "manifest.json").read_text("utf-8"))
        return loaded

    @property
    def augmentations(self) -> dict[str, float]:
        """The strengths of the augmentations that training applies, by name."""
        return dict(self.manifest.get("augmentations") or {})

    def shape(self, media: str) -> Shape:
        """What the dataset looks like to a network of `media`; `BadInput` for another medium."""
        shape = Shape.from_json(self.manifest["shape"])
        if shape.media != media:
            raise BadInput(
                f"this dataset is of kind {shape.media}", remedy=f"give one of kind {media}"
            )
        return shape

    def array(self, name: str) -> npt.NDArray[Any]:
        """The array `name` (`images`, `sounds`, `labels`, ...), memory-mapped."""
        array: npt.NDArray[Any] = np.load(
            self.folder / f"{name}.npy", mmap_mode="r", allow_pickle=False
        )
        return array

    def splits(self) -> npt.NDArray[np.uint8]:
        """The split code of each item, in order."""
        if (self.folder / DOCUMENTS).exists():
            return np.fromiter((row["split"] for row in self.rows()), np.uint8)
        return np.asarray(self.array("split"))

    @property
    def has_captions(self) -> bool:
        """Whether its images have captions."""
        return (self.folder / CAPTIONS).exists()

    def captions(self) -> Iterator[str]:
        """The captions in the order of the images; none if the dataset has no captions."""
        if self.has_captions:
            with (self.folder / CAPTIONS).open(encoding="utf-8") as lines:
                yield from (json.loads(line)["text"] for line in lines)

    def documents(self, split: int) -> Iterator[dict[str, Any]]:
        """The text rows of one split, in order."""
        return (row for row in self.rows() if row["split"] == split)

    def rows(self) -> Iterator[dict[str, Any]]:
        """All text rows, in order."""
        with (self.folder / DOCUMENTS).open(encoding="utf-8") as lines:
            yield from map(json.loads, lines)
