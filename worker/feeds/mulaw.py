"""Mu-law companding of 16-bit sound to 256 codes, finer near silence, and back.

ITU-T G.711's curve in the form of van den Oord et al. 2016, arXiv:1609.03499, section 2.2.
"""

import numpy as np
import numpy.typing as npt

MU = 255
CODES = MU + 1
SILENCE = 128  # the code of sample 0
FULL_SCALE = 32768  # the 16-bit value of amplitude 1

Codes = npt.NDArray[np.uint8]


def encode(samples: npt.NDArray[np.int16]) -> Codes:
    """The codes of 16-bit samples, of the same shape."""
    codes: Codes = _CODES[samples.view(np.uint16)]
    return codes


def decode(codes: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
    """The amplitudes in [-1, 1] of codes 0 to 255."""
    values: npt.NDArray[np.float32] = _VALUES[codes]
    return values


def _codes() -> Codes:
    """The code of every 16-bit sample: sign(x) ln(1 + mu |x|) / ln(1 + mu), scaled to 0..mu."""
    x = np.arange(2**16, dtype=np.uint16).view(np.int16) / FULL_SCALE
    curved = np.sign(x) * np.log1p(MU * np.abs(x)) / np.log1p(MU)
    codes: Codes = np.floor((curved + 1) / 2 * MU + 0.5).astype(np.uint8)
    return codes


def _values() -> npt.NDArray[np.float32]:
    curved = 2 * np.arange(CODES) / MU - 1
    values = np.sign(curved) * np.expm1(np.abs(curved) * np.log1p(MU)) / MU
    rounded: npt.NDArray[np.float32] = values.astype(np.float32)
    return rounded


_CODES, _VALUES = _codes(), _values()
