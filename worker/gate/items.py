"""What the gate reads of an evaluation: its arrays, with a row for each item, and its numbers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from db.errors import BadInput

Array = npt.NDArray[Any]
Number = Mapping[str, Any]  # value, low, high, real, n, better
Numbers = Mapping[str, Number]  # by metric


@dataclass(frozen=True)
class Items:
    """One evaluation. `protocol` names how it was measured: only equal ones can be compared.

    `elsewhere` holds the numbers of the same version on other datasets, by dataset reference.
    """

    arrays: Mapping[str, Array]
    numbers: Numbers = field(default_factory=dict)
    protocol: str = ""
    elsewhere: Mapping[str, Numbers] = field(default_factory=dict)


def read_arrays(data: bytes) -> dict[str, Array]:
    """The arrays of an `items.npz`. Raises `BadInput` if it is none, or holds pickled objects."""
    try:
        with np.load(BytesIO(data), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError, BadZipFile, AttributeError) as error:
        raise BadInput(
            f"the items of an evaluation cannot be read: {error}", remedy="evaluate again"
        ) from None
