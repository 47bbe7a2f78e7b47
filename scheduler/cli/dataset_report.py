"""What `dataset add` and `dataset show` say of the steps that items went through."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from scheduler.datasets.add import Added

BALANCE = ("label", "items", "share")
STEPS = ("step", "in", "out", "parameters", "left_out", "found")
SHOWN_LABELS = 10
SHOWN_REJECTS = 20
FIT = "fit"  # the step
FITTED = {
    "crop": "cropped to their centre (--fit pad or stretch keeps all of a picture)",
    "pad": "padded with white",
    "stretch": "stretched",
}


def print_added(added: "Added", *, as_json: bool) -> None:
    """Rejects, how the files were read, steps and a summary on stderr; the version on stdout."""
    from scheduler.output.documents import dataset_document
    from scheduler.output.render import clean, print_json

    rejects = [vars(reject) for reject in added.rejects]
    for reject in rejects[:SHOWN_REJECTS]:
        click.echo(f"rejected {clean(reject['name'])}: {clean(reject['reason'])}", err=True)
    more = added.version.summary["rejected"] - SHOWN_REJECTS
    if more > 0:
        click.echo(f"rejected {more} more; --json lists the first {len(rejects)}", err=True)
    told = added.reading | describe_steps(added.version.summary["steps"]) | summarise(added)
    for what, how in told.items():
        click.echo(f"{what}: {clean(how)}", err=True)
    if as_json:
        document = dataset_document(added.dataset, added.version)
        told_too = {"rejects": rejects, "reading": added.reading}
        print_json(document | told_too | {"source_bytes": added.source_bytes})
    else:
        click.echo(f"{added.dataset.name}:{added.version.number}")


def balance_rows(labels: Sequence[str], balance: Sequence[int]) -> list[dict[str, Any]]:
    """The items of each label, and their share of all."""
    total = sum(balance)
    return [
        {"label": label, "items": count, "share": f"{count / total:.1%}"}
        for label, count in zip(labels, balance, strict=True)
    ]


def step_rows(steps: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each step, with its parameters, its rejects by reason and what it found."""
    return [
        {
            "step": step["name"],
            "in": step["in"],
            "out": step["out"],
            "parameters": ", ".join(f"{key} {value}" for key, value in step["parameters"].items()),
            "left_out": "; ".join(f"{count:,} {why}" for why, count in step["rejects"].items()),
            "found": "; ".join(
                f"{name} {_shown(value)}" for name, value in step.get("found", {}).items()
            ),
        }
        for step in steps
    ]


def describe_steps(steps: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """A line for each step that left something out or found something, by the step's name."""
    lines: dict[str, str] = {}
    for step in steps:
        if step["name"] == FIT:
            continue  # the summary tells it
        left_out = [f"{count:,} {reason}" for reason, count in step["rejects"].items()]
        found = [
            f"{name} {_shown(value)}" for name, value in step.get("found", {}).items() if value
        ]
        if left_out or found:
            out = f"{step['out']:,} of {step['in']:,}"
            lines[step["name"]] = "; ".join([out, *left_out, *found])
    return lines


def summarise(added: "Added") -> dict[str, str]:
    """What there is now, in a line each, by its name."""
    from scheduler.output.render import to_size

    summary = added.version.summary
    left_out: Counter[str] = Counter()
    for step in summary["steps"]:
        left_out.update(step["rejects"])
    fitted = [_fitted(step) for step in summary["steps"] if step["name"] == FIT]
    splits = (f"{count:,} {name}" for name, count in summary["counts"].items())
    lines = {"items": f"{sum(summary['counts'].values()):,} ({', '.join(splits)})"}
    if left_out:
        reasons = ", ".join(f"{count:,} {why}" for why, count in left_out.most_common())
        lines["left out"] = f"{left_out.total():,} ({reasons})"
    if summary["labels"]:
        lines["balance"] = _balance(summary["labels"], summary["balance"])
    before, after = (to_size(size) for size in (added.source_bytes, summary["size_bytes"]))
    if any(fitted):
        lines["not square"] = fitted[0]
    return lines | {"stored": f"{after}, of {before} that were read"}


def _fitted(step: Mapping[str, Any]) -> str:
    """What became of pictures that were not square."""
    count = step.get("found", {}).get("not square", 0)
    return f"{count:,} of {step['in']:,}, {FITTED[step['parameters']['fit']]}" if count else ""


def _balance(labels: Sequence[str], balance: Sequence[int]) -> str:
    """The items of each label, or of the most frequent of many."""
    largest = Counter(dict(zip(labels, balance, strict=True))).most_common(SHOWN_LABELS)
    told = [f"{label}: {count:,}" for label, count in largest]
    more = len(labels) - len(told)
    return ", ".join([*told, *([f"and {more:,} more labels"] if more else [])])


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
