"""How pictures are brought to the form that an image model takes, by the files of its folder.

`preprocessor_config.json` states the size of the pictures and the mean and deviation of their
colours. What it does not state follows from `config.json`, or is assumed.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from db.errors import BadInput
from worker.complaints import as_given
from worker.networks.version_folder import CONFIG

PREPROCESSOR = "preprocessor_config.json"
SIDE = 224  # pixels, where neither the preprocessor nor the configuration says
MAX_SIDE = 4096
GREY = (0.5, 0.5, 0.5)  # mean and deviation of colours, where nothing says
REMEDY = "download it again, or save it with save_pretrained of the model's image processor"

Colours = tuple[float, ...]


@dataclass(frozen=True)
class Preparation:
    """The side of the pictures in pixels, and the mean and deviation of their three colours.

    `assumed` tells what of it the preprocessor does not state.
    """

    side: int
    mean: Colours
    deviation: Colours
    assumed: tuple[str, ...] = ()


def read_preparation(config: Mapping[str, Any], steps: Mapping[str, Any]) -> Preparation:
    """The preparation by a configuration and a preprocessor, empty if the folder has none.

    Raises `BadInput` for a value of the preprocessor that cannot be one.
    """
    sides = [_side_of(name, steps.get(name)) for name in ("crop_size", "size")]
    stated = next(filter(None, sides), None)
    side, assumed = stated or SIDE, list[str]()
    if stated is None:
        known = _configured_side(config)
        side = known or SIDE
        source = f" (as {CONFIG} says)" if known else ""
        assumed.append(f"pictures of {side} x {side} pixels{source}")
    mean, deviation = _colours(steps)
    if mean is None or deviation is None:
        assumed.append("colours of mean 0.5 and deviation 0.5")
    return Preparation(side, mean or GREY, deviation or GREY, tuple(assumed))


def _configured_side(config: Mapping[str, Any]) -> int | None:
    vision = config.get("vision_config")
    inner = vision.get("image_size") if isinstance(vision, dict) else None
    return _side(config.get("image_size")) or _side(inner)


def _colours(steps: Mapping[str, Any]) -> tuple[Colours | None, Colours | None]:
    """The mean and the deviation of the colours, as far as a preprocessor states them."""
    mean = _colours_of("image_mean", steps.get("image_mean"))
    deviation = _colours_of("image_std", steps.get("image_std"))
    if deviation is not None and min(deviation) <= 0:
        raise _wrong("image_std", steps["image_std"], "numbers greater than 0")
    normal = steps.get("do_normalize")
    if not (normal is None or isinstance(normal, bool)):
        raise _wrong("do_normalize", normal, "true or false")
    return ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)) if normal is False else (mean, deviation)


def _side_of(name: str, size: object) -> int | None:
    """The pixels of a side, if the preprocessor's `size` or `crop_size` states them."""
    side = _side(size)
    states = size is not None and not (_is_table(size) and _edge(size) is None)
    if states and side is None:
        raise _wrong(name, size, f"pixels from 1 to {MAX_SIDE:,}")
    return side


def _side(size: Any) -> int | None:
    """The pixels of a side, of a size as preprocessors and configurations write it."""
    if _is_table(size):
        size = _edge(size)
    if isinstance(size, list) and size:
        size = size[0]
    fits = isinstance(size, int) and not isinstance(size, bool) and 0 < size <= MAX_SIDE
    return int(size) if fits else None


def _edge(size: Any) -> object:
    shortest = size.get("shortest_edge")
    return size.get("height") if shortest is None else shortest


def _is_table(value: object) -> bool:
    return isinstance(value, dict)


def _colours_of(name: str, values: Any) -> Colours | None:
    """A number for each colour, if the preprocessor states them."""
    if values is None:
        return None
    three = values if isinstance(values, list) else [values] * 3
    if len(three) != 3 or not all(_is_number(each) for each in three):
        raise _wrong(name, values, "three numbers")
    return tuple(float(each) for each in three)


def _is_number(value: object) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value)  # type: ignore[arg-type] # a number


def _wrong(name: str, value: object, allowed: str) -> BadInput:
    return BadInput(f"{name}: expected {allowed} (got {as_given(value)})", remedy=REMEDY)
