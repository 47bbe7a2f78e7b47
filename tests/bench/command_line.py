"""The start-up time of the command line."""

import subprocess
import sys
import time
from pathlib import Path

from tests.bench.measure import Measure

TURNS = 15


def seconds(*command: str) -> float:
    """Wall time of a command."""
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began


def help_against_click(_: Path) -> Measure:
    """`genmill --help` against `python -c "import click"`."""
    genmill = str(Path(sys.executable).with_name("genmill"))
    ours, base = [], []
    for _turn in range(TURNS):
        ours.append(seconds(genmill, "--help"))
        base.append(seconds(sys.executable, "-c", "import click"))
    return Measure("genmill --help", min(ours), min(base), "s", min(ours) / min(base), at_most=3)
