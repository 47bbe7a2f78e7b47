"""`genmill job remove`, `model remove`, `dataset remove`: what would go, then doing it."""

import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from scheduler.cli.options import as_json
from scheduler.cli.record import open_record

if TYPE_CHECKING:
    from scheduler.removal.datasets import DatasetPlan
    from scheduler.removal.jobs import JobPlan
    from scheduler.removal.models import ModelPlan
    from scheduler.removal.plan import Plan
    from worker.services import Services

    AnyPlan = JobPlan | ModelPlan | DatasetPlan

COLUMNS = ("kind", "name", "size", "objects", "then")


def removal_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that every removal takes."""
    for option in (
        as_json,
        click.option("--yes", is_flag=True, help="Do it without asking."),
        click.option("--dry-run", is_flag=True, help="Only show what would go, and what follows."),
    ):
        function = option(function)
    return function


@click.command("remove")
@click.argument("ids", nargs=-1, required=True, metavar="ID|BATCH...")
@click.option(
    "--keep-artifacts",
    is_flag=True,
    help="Keep what the jobs made: only their logs, curves, previews and checkpoints go, and they "
    "are not listed any more.",
)
@removal_options
def remove_jobs(ids: tuple[str, ...], keep_artifacts: bool, **options: bool) -> None:
    """Remove ended jobs, or whole batches, with everything that they made; print their ids.

    A job stays, and the command says why, while anything names it: a model version or an
    evaluation that it made, a retry, a job that came after it, the history of an alias. What is
    removed together holds nothing. A removed job's id keeps telling who removed it, and when.

    \b
    genmill job remove 0199c0de --dry-run
    genmill job remove 0199c0de 0199c0df --yes
    """
    from scheduler.removal.jobs import plan_jobs

    dry_run = options["dry_run"]
    _remove(
        lambda services: plan_jobs(services, ids, kept=keep_artifacts, dry_run=dry_run), options
    )


@click.command("remove")
@click.argument("reference", metavar="NAME[:VERSION]")
@click.option(
    "--keep-artifacts", is_flag=True, help="Only hide it; its files and evaluations stay."
)
@removal_options
def remove_model(reference: str, keep_artifacts: bool, **options: bool) -> None:
    """Remove a version of a model, or all of its versions, with weights and evaluations.

    A version stays, and the command says why, while an alias means it, an unfinished job or a
    schedule uses it, or another version was tuned from it. Its number is not used again. Samples
    that were made with it stay; they can no longer be reproduced.

    \b
    genmill model remove digits:1 --dry-run
    genmill model remove digits --yes
    """
    from scheduler.removal.models import plan_models

    dry_run = options["dry_run"]
    _remove(
        lambda services: plan_models(services, reference, kept=keep_artifacts, dry_run=dry_run),
        options,
    )


@click.command("remove")
@click.argument("name", metavar="NAME[:VERSION]")
@click.option("--keep-artifacts", is_flag=True, help="Only hide it; its content stays.")
@removal_options
def remove_dataset(name: str, keep_artifacts: bool, **options: bool) -> None:
    """Hide a dataset, or one version, from new jobs, and delete its content.

    Content stays, and the command says why, while a model was trained on it or measured against
    it; remove those first, and then the dataset again. It is refused while a schedule or an
    unfinished job uses the version. On a terminal it asks; elsewhere it needs no --yes.

    \b
    genmill dataset remove mnist:1 --dry-run
    """
    from scheduler.removal.datasets import plan_datasets

    dry_run = options["dry_run"]
    _remove(
        lambda services: plan_datasets(services, name, kept=keep_artifacts, dry_run=dry_run),
        options,
        always_asks=False,
    )


def agree(what: str, *, then: str = "go for good") -> None:
    """Ask on a terminal whether something is to go; raise `Exit` if not. Elsewhere, `Refused`."""
    from db.errors import Refused

    if not sys.stdin.isatty():
        raise Refused(
            f"nothing was removed: {what} would {then}",
            remedy="give --yes to remove, or --dry-run to see what would go",
        )
    if not click.confirm(f"{what} will {then}. Go on?", err=True):
        click.echo("nothing was removed", err=True)
        raise click.exceptions.Exit(1)


def _remove(
    make: "Callable[[Services], AnyPlan]", options: Mapping[str, bool], *, always_asks: bool = True
) -> None:
    from scheduler.output.render import print_json, to_size

    dry_run = options["dry_run"]
    if dry_run and options["yes"]:
        raise click.UsageError("--dry-run changes nothing, and --yes does it; give one of them")
    with open_record() as services:
        plan = make(services)
        if not dry_run:
            if not options["yes"]:
                _agree_to(plan, always_asks=always_asks)
            plan.carry_out(services)
    if options["as_json"]:
        print_json(plan.document(dry_run=dry_run))
        return
    if dry_run:
        _show(plan)
    else:
        click.echo("\n".join(plan.names))
    _explain(plan)
    click.echo(f"{to_size(plan.size_bytes)} {'would be freed' if dry_run else 'freed'}", err=True)


def _agree_to(plan: "Plan", *, always_asks: bool) -> None:
    from scheduler.output.render import to_count, to_size

    if not plan.items or not (always_asks or sys.stdin.isatty()):
        return
    if sys.stdin.isatty():
        _explain(plan)
    counted = to_count(len(plan.items), plan.items[0].kind)
    if all(item.kept for item in plan.items):
        agree(counted, then="be hidden")
    else:
        agree(f"{counted}, {to_size(plan.size_bytes)},")


def _show(plan: "Plan") -> None:
    from scheduler.output.render import print_table, to_size

    rows = [
        {
            "kind": item.kind,
            "name": item.name,
            "size": to_size(item.size_bytes),
            "objects": item.objects,
            "then": "hidden" if item.kept else "gone",
        }
        for item in plan.items
    ]
    print_table(rows, COLUMNS)


def _explain(plan: "Plan") -> None:
    """What is only hidden and why, and what follows."""
    from scheduler.output.render import clean
    from scheduler.removal.plan import listed

    for item in plan.items:
        if item.kept and item.because:
            told = f"{item.name} is only hidden, and its content stays"
            back = "; added again, it is back" if item.kind == "dataset" else ""
            text = f"{told}: {listed(item.because)}{back}"
            click.echo(clean(text), err=True)
    for line in plan.follows:
        click.echo(clean(line), err=True)
