"""Benchmarks of speed and memory, each as a ratio to a baseline: `make bench`.

Both sides alternate in the same environment, and the best of a few runs counts, because the machine
may be busy with other work.
"""

import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import click

from db.errors import Refused
from tests.bench.measure import Measure

THREADS = "1"
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, THREADS)


def measures() -> dict[str, Callable[[Path], Measure]]:
    """Every comparison by name; imported late, so that threads are limited before torch loads."""
    from tests.bench import command_line, generation, training

    return {
        "help": command_line.help_against_click,
        "gpt-training": training.gpt_against_a_plain_loop,
        "gan-generation": generation.images_against_a_plain_loop,
        "memory": generation.memory_of_ten_times_the_samples,
    }


@click.command()
@click.option("--json", "path", type=click.Path(path_type=Path), help="write the rows here")
@click.option("--only", help="one comparison by name")
def main(path: Path | None, only: str | None) -> None:
    """Run the comparisons; exit 1 where a bound is missed."""
    known = measures()
    if only is not None and only not in known:
        raise click.UsageError(str(Refused.unknown("comparison", only, known)))
    rows = []
    for name in [only] if only else known:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(known[name](Path(folder)))
        report(rows[-1])
    if path:
        path.write_text(json.dumps([row.row() for row in rows], indent=2) + "\n", "utf-8")
    sys.exit(0 if all(row.kept for row in rows) else 1)


def report(row: Measure) -> None:
    """One line for people."""
    bound = f">= {row.at_least}" if row.at_least is not None else f"<= {row.at_most}"
    click.echo(
        f"{'ok  ' if row.kept else 'MISS'} {row.name}: {row.ours:.4g} against {row.baseline:.4g} "
        f"{row.unit}, ratio {row.ratio:.2f} (bound {bound})"
    )


if __name__ == "__main__":
    main()
