"""Benchmarks of speed and memory, each as a ratio to a baseline: `make bench`.

Both sides alternate in one environment; each figure is the median of its turns.
"""

import json
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import click

from db.errors import Refused
from tests.bench.bench import Bench
from tests.bench.measure import Measure
from tests.bench.rows import FLEET, ROWS
from tests.bench.table import markdown


@click.command()
@click.option("--json", "path", type=click.Path(path_type=Path), help="write the rows here")
@click.option("--only", multiple=True, help="one comparison by name; may be repeated")
@click.option("--quick", is_flag=True, help="small sizes, in under two minutes")
@click.option("--scale", is_flag=True, help="the simulated fleet instead")
@click.option("--pairs", type=click.IntRange(1), help="turns of each side")
@click.option("--table", type=click.Path(exists=True, path_type=Path), help="print rows as a table")
def main(
    path: Path | None,
    only: tuple[str, ...],
    quick: bool,
    scale: bool,
    pairs: int | None,
    table: Path | None,
) -> None:
    """Run the comparisons; exit 1 where a bound is missed."""
    if table:
        click.echo(markdown(json.loads(table.read_text("utf-8"))))
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # systems that were started are stopped
    chosen = choose(only, quick=quick, scale=scale)
    rows: list[Measure] = []
    with Bench(quick=quick) as bench:
        bench.pairs = pairs or bench.pairs
        for name in chosen:
            began = time.monotonic()
            for row in run(bench, name):
                report(row)
                rows.append(row)
                if path:  # after each, because a later one may take long
                    path.write_text(as_json(rows), "utf-8")
            click.echo(f"     {name} took {time.monotonic() - began:.0f} s", err=True)
    sys.exit(0 if all(row.kept for row in rows) else 1)


def choose(only: tuple[str, ...], *, quick: bool, scale: bool) -> list[str]:
    """The names of the comparisons to run. Raises `click.UsageError` for an unknown one."""
    known = ROWS | FLEET
    for name in only:
        if name not in known:
            raise click.UsageError(str(Refused.unknown("comparison", name, known)))
    if only:
        return list(only)
    if scale:
        return list(FLEET)
    return [name for name, row in ROWS.items() if row.quick or not quick]


def run(bench: Bench, name: str) -> Iterable[Measure]:
    """Run one comparison, which may have several rows."""
    found = (ROWS | FLEET)[name].load()(bench)
    return [found] if isinstance(found, Measure) else found


def as_json(rows: list[Measure]) -> str:
    """The rows as a JSON document."""
    return json.dumps([each.row() for each in rows], indent=2) + "\n"


def report(row: Measure) -> None:
    """One line for people."""
    low, high = row.spread or (row.ratio, row.ratio)
    click.echo(
        f"{'ok  ' if row.kept else 'MISS'} {row.name}: {row.ours:.4g} against {row.baseline:.4g} "
        f"{row.unit}, ratio {row.ratio:.3g} ({low:.3g} to {high:.3g}; bound {row.bound})"
    )


if __name__ == "__main__":
    main()
