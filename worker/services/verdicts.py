"""What was found of each sample of an order, shard by shard; and which samples that accepts.

A sample is judged alone where its shard is made. Whether it resembles an earlier one is decided
here, over all of them and in the order of their numbers: so the selection is the same however the
order was cut into shards.
"""

import io
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from db.errors import DigestMismatch

PASSED, CONFIDENCE, AGREEMENT, COPY, SHORT, LONG, DUPLICATE = range(7)
NAMES = (
    "accepted",
    "confidence",
    "agreement",
    "copies_of_training",
    "min_length",
    "max_length",
    "near_duplicates",
)
BLOCK = 512

Codes = npt.NDArray[np.uint8]
Signatures = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Verdicts:
    """Of some samples in a row, from sample `start`: a code, and the number it is about.

    `signatures` (N, D) say how alike two samples are: they are near-duplicates if the mean squared
    difference is at most `radius`. They are (N, 0) where near-duplicates are allowed.
    """

    start: int
    codes: Codes
    values: npt.NDArray[np.float32]
    signatures: Signatures
    radius: float

    def encode(self) -> bytes:
        """As the bytes of an `.npz` file; equal verdicts give equal bytes."""
        file = io.BytesIO()
        np.savez(
            file,
            start=np.int64(self.start),
            codes=self.codes,
            values=self.values,
            signatures=self.signatures,
            radius=np.float64(self.radius),
        )
        return file.getvalue()

    @classmethod
    def decode(cls, data: bytes) -> "Verdicts":
        """The inverse of `encode`. Raises `DigestMismatch` for anything else."""
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as found:
                arrays = (found["codes"], found["values"], found["signatures"])
                return cls(int(found["start"]), *arrays, float(found["radius"]))
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise DigestMismatch(f"verdicts that cannot be read: {error}") from None


@dataclass(frozen=True)
class Selection:
    """The first samples up to the last accepted one: their codes and values, by their number."""

    codes: Codes
    values: npt.NDArray[np.float32]

    @property
    def accepted(self) -> npt.NDArray[np.int64]:
        """The numbers of the accepted samples."""
        return np.flatnonzero(self.codes == PASSED)

    @property
    def rejected(self) -> Counter[str]:
        """How many samples each rule has rejected."""
        return Counter(NAMES[code] for code in self.codes if code != PASSED)

    def lines(self) -> Iterator[str]:
        """A line of JSON for each sample."""
        for index, (code, value) in enumerate(zip(self.codes, self.values, strict=True)):
            if code == PASSED:
                yield f'{{"index": {index}, "accepted": true}}'
            else:
                yield (
                    f'{{"index": {index}, "accepted": false, "rule": "{NAMES[code]}", '
                    f'"value": {float(value):.6g}}}'
                )


def select(parts: Sequence[Verdicts], wanted: int) -> Selection:
    """The selection of the first `wanted` accepted samples; of fewer, where there are not enough.

    Raises `DigestMismatch` if the parts do not follow one another from sample 0.
    """
    codes, values, first = [], [], 0
    kept = _Kept(wanted)
    for part in parts:
        if part.start != first:
            raise DigestMismatch(f"verdicts from sample {part.start}, not {first}")
        first += len(part.codes)
        found, numbers = kept.take(part)
        codes.append(found)
        values.append(numbers)
        if kept.count == wanted:
            break
    return Selection(np.concatenate(codes), np.concatenate(values))


class _Kept:
    """The accepted samples so far."""

    def __init__(self, wanted: int) -> None:
        self.count = 0
        self._wanted = wanted
        self._signatures: list[Signatures] = []

    def take(self, part: Verdicts) -> tuple[Codes, npt.NDArray[np.float32]]:
        """The codes and values of a part, up to the last sample that is wanted."""
        codes, values = part.codes.copy(), part.values.copy()
        for at in range(0, len(codes), BLOCK):
            block = slice(at, at + BLOCK)
            if part.signatures.shape[1]:
                self._reject_repeated(part, block, codes, values)
            passed = np.flatnonzero(codes[block] == PASSED)[: self._wanted - self.count]
            self.count += len(passed)
            self._signatures.append(part.signatures[block][passed])
            if self.count == self._wanted:
                end = at + int(passed[-1]) + 1
                return codes[:end], values[:end]
        return codes, values

    def _reject_repeated(
        self, part: Verdicts, block: slice, codes: Codes, values: npt.NDArray[np.float32]
    ) -> None:
        own = part.signatures[block]
        nearest = np.full(len(own), np.inf)
        for earlier in self._signatures:
            if len(earlier):
                nearest = np.minimum(nearest, _differences(own, earlier).min(axis=1))
        within = _differences(own, own)
        accepted: list[int] = []
        for row in range(len(own)):
            number = block.start + row
            if codes[number] != PASSED:
                continue
            found = min(nearest[row], within[row, accepted].min(initial=np.inf))
            if found <= part.radius:
                codes[number], values[number] = DUPLICATE, found
            else:
                accepted.append(row)


def _differences(left: Signatures, right: Signatures) -> npt.NDArray[np.float64]:
    """Mean squared differences (N, M) of signatures (N, D) and (M, D).

    In float64: in float32, rounding depends on how the samples are cut into blocks.
    """
    left, right = left.astype(np.float64), right.astype(np.float64)
    squares = (left**2).sum(1)[:, None] + (right**2).sum(1) - 2 * (left @ right.T)
    return np.asarray(np.maximum(squares, 0) / left.shape[1])
