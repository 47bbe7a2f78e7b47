"""What `dataset add` and `dataset show` say of the steps that items went through."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any


def describe_steps(steps: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """A line for each step that left something out or found something, by the step's name."""
    lines = {}
    for step in steps:
        left_out = [f"{count:,} {reason}" for reason, count in step["rejects"].items()]
        found = [
            f"{name} {_shown(value)}" for name, value in step.get("found", {}).items() if value
        ]
        if left_out or found:
            out = f"{step['out']:,} of {step['in']:,}"
            lines[step["name"]] = "; ".join([out, *left_out, *found])
    return lines


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {count:,}" for name, count in value.items())
    return f"{value:,}" if isinstance(value, int) else str(value)


@contextmanager
def stage_progress() -> Iterator[Callable[[str, int], None] | None]:
    """Counts items of each stage on stderr, if that is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,} items"),
    )
    shown = Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True)
    with shown:
        task = shown.add_task("read", total=None)
        yield lambda stage, count: shown.update(task, description=stage, completed=count)
