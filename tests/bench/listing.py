"""`job list`, `job show` and `status` with a million jobs, against an empty record."""

import contextlib
import io
import os
from collections.abc import Callable, Iterator
from unittest import mock

from tests.bench.bench import Bench
from tests.bench.fill import Shape, fill
from tests.bench.machine import Machine
from tests.bench.measure import Measure, compare, seconds
from tests.bench.records import KINDS, record, url_of

PAGE = 50  # jobs that `job list` shows


def listing(bench: Bench) -> Iterator[Measure]:
    """As processes against an empty record; inside one process against a record of one page."""
    jobs = bench.size(1_000_000, 20_000)
    for kind in KINDS:
        with record(bench, kind) as small, record(bench, kind) as large:
            page = fill(small, Shape(jobs=PAGE), status="succeeded")
            many = fill(large, Shape(jobs=jobs), status="succeeded")
            sides = [(_machine(bench, url_of(large)), many), (_machine(bench, url_of(small)), page)]
            for words in (["job", "list"], ["job", "show"], ["status"]):
                title = f"{' '.join(words)}, {jobs:,} jobs against {PAGE} ({kind}, {{}})"
                for way, run in {"a process": _as_process, "one call": _in_process}.items():
                    ours, base = (
                        _timed(run, machine, [*words, *ids[:1]] if "show" in words else words)
                        for machine, ids in sides
                    )
                    yield compare(title.format(way), "s", ours, base, pairs=bench.pairs, at_most=2)


def _machine(bench: Bench, url: str) -> Machine:
    machine = Machine(bench.made_folder("listing"), {"GENMILL_DATABASE_URL": url})
    machine.home.mkdir()
    return machine


def _timed(
    run: Callable[[Machine, list[str]], None], machine: Machine, words: list[str]
) -> Callable[[], float]:
    run(machine, words)  # caches are warm
    return lambda: seconds(lambda: run(machine, words))


def _as_process(machine: Machine, words: list[str]) -> None:
    machine.run(*words)


def _in_process(machine: Machine, words: list[str]) -> None:
    from scheduler.cli import cli

    with (
        mock.patch.dict(os.environ, machine.environment, clear=True),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        cli.main(words, standalone_mode=False)
