"""Fingerprints as rows of bits: how they are packed, stored and compared."""

from typing import Any

import numpy as np
import numpy.typing as npt

from db.errors import BadInput

BITS = 128
WORDS = BITS // 64
ROW_BYTES = BITS // 8

Fingerprints = npt.NDArray[np.uint64]  # (N, WORDS); a row of zeros: too plain to have one


def pack(bits: npt.NDArray[np.bool_]) -> Fingerprints:
    """Fingerprints of bits (N, `BITS`)."""
    return decode(np.packbits(bits, axis=1).tobytes())


def encode(rows: Fingerprints) -> bytes:
    """`ROW_BYTES` for each fingerprint, in order."""
    return rows.astype(">u8").tobytes()


def decode(data: bytes) -> Fingerprints:
    """The inverse of `encode`; `BadInput` for bytes of another length."""
    if len(data) % ROW_BYTES:
        raise BadInput(f"{len(data):,} bytes are no whole number of fingerprints")
    return np.frombuffer(data, ">u8").reshape(-1, WORDS).astype(np.uint64)


def fewest_bits(rows: Fingerprints, probes: Fingerprints) -> npt.NDArray[np.uint8]:
    """The bits in which each row differs from the nearest of some probes, (N,).

    `BITS` for rows and probes that are too plain to be compared.
    """
    apart = np.full(len(rows), BITS, np.uint8)
    columns = [np.ascontiguousarray(rows[:, word]) for word in range(WORDS)]
    for probe in probes[probes.any(axis=1)]:
        bits: Any = sum(
            np.bitwise_count(column ^ word) for column, word in zip(columns, probe, strict=True)
        )
        np.minimum(apart, bits, out=apart)
    apart[~rows.any(axis=1)] = BITS
    return apart
