"""`genmill policy`: the rules by which the gate decides."""

from pathlib import Path

import click

from scheduler.cli.lazy import DeclaredChoice
from scheduler.cli.options import as_json, shown
from scheduler.cli.record import open_record
from scheduler.submission.path_arguments import PathArgument

MEDIUM = DeclaredChoice("worker.media:MEDIA")

_medium = click.option(
    "--medium", type=MEDIUM, default="image", show_default=True, help="What the models make."
)
_file = PathArgument(dir_okay=False, path_type=Path)


@click.group("policy")
def policy() -> None:
    """Rules by which the gate decides whether a version is promoted."""


@policy.command("show")
@click.argument("file", type=_file, required=False, metavar="[FILE]")
@_medium
@shown
def show(file: Path | None, medium: str, as_json: bool) -> None:
    """Check a policy file and print it complete, or the default policy of a medium.

    \b
    genmill policy show --medium text > policy.toml
    genmill policy show policy.toml
    """
    from scheduler.output.render import print_json, print_text
    from worker.gate.policy import policy_for, read_policy, to_toml

    found = policy_for(medium, read_policy(file) if file else {})
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        print_text(to_toml(found))


@policy.command("noise")
@click.argument("references", nargs=-1, required=True, metavar="MODEL...")
@click.option("--policy", "file", type=_file, metavar="FILE", help="Policy file.")
@click.option(
    "--dataset", metavar="D", help="Use evaluations on this dataset. Default: the newest."
)
@as_json
def noise(
    references: tuple[str, ...], file: Path | None, dataset: str | None, as_json: bool
) -> None:
    """Estimate the noise between training seeds: `[noise] training_sd` of a policy.

    Give three or more versions that differ in the seed of their training alone, and that were
    evaluated by one protocol. Done once for a policy.

    \b
    genmill policy noise digits:1 digits:2 digits:3
    """
    from scheduler.models.compare import training_sd
    from scheduler.output.render import print_json
    from worker.gate.policy import read_policy

    with open_record() as services:
        given = read_policy(file) if file else {}
        metric, sd = training_sd(services, references, given, dataset)
    if as_json:
        print_json({"metric": metric, "training_sd": sd})
    else:
        click.echo(f"[noise]\ntraining_sd = {sd:.4g}  # of {metric}, by {len(references)} seeds")
