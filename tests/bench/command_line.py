"""The start-up time of the command line."""

import sys

from tests.bench.bench import Bench
from tests.bench.machine import GENMILL, Machine
from tests.bench.measure import Measure, compare, seconds

TURNS = 15  # a turn takes a tenth of a second


def help_against_click(bench: Bench) -> Measure:
    """`genmill --help` against `python -c "import click"`."""
    return _against(bench, "genmill --help", ["--help"], "click")


def job_list_against_sqlalchemy(bench: Bench) -> Measure:
    """`genmill job list` in an empty record, against importing SQLAlchemy's ORM."""
    return _against(bench, "genmill job list", ["job", "list"], "sqlalchemy.orm")


def _against(bench: Bench, name: str, words: list[str], module: str) -> Measure:
    machine = Machine(bench.new_folder("empty"))
    machine.folder.mkdir()
    machine.run("job", "list")  # makes the record, and Python's caches

    def process(*command: str) -> float:
        return seconds(lambda: machine.process(*command))

    return compare(
        f"{name} against import {module}",
        "s",
        lambda: process(GENMILL, *words),
        lambda: process(sys.executable, "-c", f"import {module}"),
        pairs=bench.size(TURNS, 3),
        at_most=1.5,
    )
