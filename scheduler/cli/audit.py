"""`genmill doctor --audit`: what the audit finds, and repairs of it."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from scheduler.audit.repair import Plan
    from scheduler.audit.violations import Violation
    from worker.services import Services


def run_audit(
    heads: Sequence[Path], *, repair: bool, dry_run: bool, yes: bool, as_json: bool
) -> None:
    """Audit, print each violation, and repair what can be made again if that is wanted.

    The ledger is compared with the heads of it in the files `heads`, too. Raises `GenmillError` if
    anything is wrong afterwards, and `BadInput` for a file without a head.
    """
    from db.errors import GenmillError
    from scheduler.audit.auditor import Auditor
    from scheduler.audit.repair import plan_repairs
    from scheduler.cli.record import open_record
    from scheduler.output.render import clean, print_json, to_count
    from scheduler.results.heads import read_head

    outside = [read_head(file) for file in heads]
    with open_record() as services:
        found: list[Violation] = []
        for violation in Auditor(services).violations(outside):
            found.append(violation)
            if not as_json:
                click.echo(clean(str(violation)))
        document: dict[str, object] = {"violations": [asdict(each) for each in found]}
        left = len(found)
        if repair and found:
            plan = plan_repairs(services, found)
            steps = list(plan.steps())
            document |= {"repairs": steps, "repaired": False}
            _show_plan(steps, plan, quiet=as_json)
            if steps and not dry_run and (yes or _agreed()):
                problems = _repair(services, plan)
                left = len(plan.hopeless) + len(problems)
                document |= {"repaired": True, "problems": problems}
    if as_json:
        print_json({"ok": not left} | document)
    if left:
        what = "left" if document.get("repaired") else "found"
        raise GenmillError(f"{to_count(left, 'violation')} {what}")
    if not as_json:
        click.echo("repaired" if found else "no violation", err=True)


def _show_plan(steps: list[str], plan: "Plan", *, quiet: bool) -> None:
    if quiet:
        return
    for step in steps:
        click.echo(f"repair: {step}", err=True)
    if plan.hopeless:
        click.echo(
            f"repair: {len(plan.hopeless)} of these cannot be repaired; restore a backup, or "
            "submit the jobs again",
            err=True,
        )


def _agreed() -> bool:
    if sys.stdin.isatty():
        return click.confirm("Repair?", err=True)
    click.echo("nothing was changed: give --yes to repair", err=True)
    return False


def _repair(services: "Services", plan: "Plan") -> list[str]:
    from scheduler.audit.repair import repair as do
    from scheduler.output.render import clean

    problems = do(services, plan, lambda line: click.echo(line, err=True))
    for problem in problems:
        click.echo(clean(problem), err=True)
    return problems
