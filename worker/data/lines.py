"""Files of lines that belong to a dataset's items."""

from pathlib import Path

import numpy as np
import numpy.typing as npt


def keep_lines(path: Path, keep: npt.NDArray[np.bool_]) -> None:
    """Leave only some lines in a file."""
    if keep.all():
        return
    short = path.with_suffix(".short")
    with path.open("rb") as lines, short.open("wb") as out:
        out.writelines(line for line, kept in zip(lines, keep, strict=True) if kept)
    short.replace(path)
