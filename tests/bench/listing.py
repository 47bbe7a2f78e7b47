"""`job list`, `job show` and `status` with a million queued jobs, against one page of jobs."""

import contextlib
import io
import os
from collections.abc import Callable, Iterator
from unittest import mock

from tests.bench.bench import Bench
from tests.bench.fill import Shape
from tests.bench.machine import Machine
from tests.bench.measure import Measure, compare, seconds
from tests.bench.records import KINDS, filled, url_of

PAGE = 50  # jobs that `job list` shows


def listing(bench: Bench) -> Iterator[Measure]:
    """As processes, and as one call inside a process, against a record of one page."""
    jobs = bench.size(1_000_000, 5_000)
    for kind in KINDS:
        queues = [filled(bench, kind, Shape(jobs=count)) for count in (jobs, PAGE)]
        sides = [(_machine(bench, url_of(each.database)), each.jobs[0]) for each in queues]
        for words in COMMANDS:
            title = f"{' '.join(words)}, {jobs:,} jobs against {PAGE} ({kind}, {{}})"
            for way, (run, turns) in WAYS.items():
                if bench.quick and run is _as_process and words is not COMMANDS[0]:
                    continue  # the start of a process weighs more than anything it does
                ours, base = (
                    _timed(run, machine, [*words, job] if "show" in words else words)
                    for machine, job in sides
                )
                pairs = max(bench.pairs, bench.size(turns, 1))
                yield compare(title.format(way), "s", ours, base, pairs=pairs, at_most=2)


def _machine(bench: Bench, url: str) -> Machine:
    machine = Machine(bench.made_folder("listing"), {"GENMILL_DATABASE_URL": url})
    machine.home.mkdir()
    return machine


def _timed(
    run: Callable[[Machine, list[str]], None], machine: Machine, words: list[str]
) -> Callable[[], float]:
    run(machine, words)  # caches are warm then
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


COMMANDS = (
    ["job", "list"],
    ["job", "list", "--status", "queued", "--since", "1d"],
    ["job", "list", "--since", "30m"],  # jobs are an hour old
    ["job", "show"],
    ["status"],
)
WAYS = {"a process": (_as_process, 5), "one call": (_in_process, 15)}  # and turns of each
