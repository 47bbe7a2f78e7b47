"""Brings sounds to one loudness: integrated loudness in LUFS, or root mean square in dBFS.

Source: ITU-R BS.1770-5, "Algorithms to measure audio programme loudness and true-peak audio level":
K-weighting, blocks of 400 ms, gates at -70 LUFS and 10 LU below the mean.
"""

import re

import numpy as np
import numpy.typing as npt

from db.errors import Refused
from worker.cleaning.steps import Step

BLOCK_S, OVERLAP = 0.4, 0.75
UNITS = ("LUFS", "dBFS")
LIMITS = (-70.0, 0.0)  # dB
PEAK = 32767

Sound = npt.NDArray[np.int16]


class Loudness(Step):
    """Scales each sound to one loudness; where it would clip, to the loudest without clipping."""

    name = "loudness"

    rate: int  # of the sounds, in Hz; known once all headers are read

    def __init__(self, level: float, unit: str) -> None:
        self.parameters = {"level": level, "unit": unit}
        self._level, self._lufs = level, unit == "LUFS"
        self._limited = 0

    def __call__(self, content: Sound) -> Sound:
        """An int16 (T,) sound, scaled."""
        sound = content / 32768
        now = lufs(sound, self.rate) if self._lufs else rms_dbfs(sound)
        if not np.isfinite(now):
            return content
        gain = 10 ** ((self._level - now) / 20)
        room = PEAK / max(1, int(np.abs(content.astype(np.int32)).max()))
        self._limited += gain > room
        return np.asarray(np.rint(content * min(gain, room)), np.int16)

    def found(self) -> dict[str, int]:
        """How many sounds are quieter than asked for, because they would clip."""
        return {"limited by clipping": self._limited} if self._limited else {}


def parse_loudness(text: str) -> tuple[float, str]:
    """The level and unit of a text such as `-23LUFS`. Raises `Refused`."""
    match = re.fullmatch(r"(-?\d+(?:\.\d+)?) ?(\w+)", text.strip())
    unit = next((each for each in UNITS if match and match[2].casefold() == each.casefold()), None)
    if not match or unit is None or not LIMITS[0] <= float(match[1]) <= LIMITS[1]:
        raise Refused(
            f"loudness {text!r} is not a level from -70 to 0 and a unit",
            remedy="write it as -23LUFS or -20dBFS",
        )
    return float(match[1]), unit


def rms_dbfs(sound: npt.NDArray[np.float64]) -> float:
    """The root mean square of a sound in dB, where 0 is that of a full-scale square wave."""
    with np.errstate(divide="ignore"):
        return float(10 * np.log10(np.square(sound).mean()))


def lufs(sound: npt.NDArray[np.float64], rate: int) -> float:
    """The integrated loudness of a mono sound in [-1, 1]; -inf if it is too quiet to be gated in.

    A sound shorter than a block is measured as one block.
    """
    from scipy.signal import sosfilt  # noqa: PLC0415 - rarely needed

    weighted = np.square(sosfilt(_k_weighting(rate), sound))
    size = min(len(sound), round(BLOCK_S * rate))
    step = max(1, round(size * (1 - OVERLAP)))
    sums = np.concatenate([[0.0], np.cumsum(weighted)])
    starts = np.arange(0, len(sound) - size + 1, step)
    power = (sums[starts + size] - sums[starts]) / size
    with np.errstate(divide="ignore"):
        power = power[_decibels(power) > -70]
        if len(power):
            power = power[_decibels(power) > _decibels(power.mean()) - 10]
    return float(_decibels(power.mean())) if len(power) else -np.inf


def _decibels(power: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(-0.691 + 10 * np.log10(power))


def _k_weighting(rate: int) -> npt.NDArray[np.float64]:
    """The standard's two filters at any sample rate, as second-order sections.

    The standard gives them at 48 kHz; these are their analogue prototypes (De Man 2014), mapped by
    the bilinear transform, as pyloudnorm and ffmpeg's ebur128 do.
    """
    sections = []
    k = np.tan(np.pi * min(1681.974450955533 / rate, 0.49))
    q, high = 0.7071752369554196, 10 ** (3.999843853973347 / 20)
    middle = high**0.4996667741545416
    norm = 1 + k / q + k * k
    shelf = [high + middle * k / q + k * k, 2 * (k * k - high), high - middle * k / q + k * k]
    sections.append([*(each / norm for each in shelf), 1, *_poles(k, q)])
    k, q = np.tan(np.pi * 38.13547087602444 / rate), 0.5003270373238773
    sections.append([1, -2, 1, 1, *_poles(k, q)])
    return np.array(sections)


def _poles(k: float, q: float) -> tuple[float, float]:
    norm = 1 + k / q + k * k
    return 2 * (k * k - 1) / norm, (1 - k / q + k * k) / norm
