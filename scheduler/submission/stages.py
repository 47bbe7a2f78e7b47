"""What is to follow a job: `--evaluate`, `--promote` and `--publish`, as jobs that wait for it."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from db.models import CHAMPION
from db.registry import Reference
from scheduler.submission.path_arguments import PathArgument
from worker.specs import BEFORE, Finetune, Generate, Spec, Train, parse_spec

OPTIONS = (
    *("evaluate", "evaluate_on", "evaluate_count", "evaluate_judge"),
    *("promote", "policy", "alias", "publish"),
)

publish_option = click.option(
    "--publish",
    metavar="TARGET",
    multiple=True,
    help="Then publish what was made at this target; repeatable. See `genmill target list`.",
)


def judge_option(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The option that names the folder of an image model."""
    return click.option(
        name,
        type=PathArgument(file_okay=False),
        metavar="FOLDER",
        help="Judge pictures by this image model of the library transformers, in place of a small "
        "network that is trained on the dataset. Workers must find the folder under the same path.",
    )


def read_judge(folder: str | None) -> dict[str, Any] | None:
    """The folder of an image model with its digest. Raises `BadInput` if it holds none."""
    if folder is None:
        return None
    from worker.networks.image_model import read_image_model  # noqa: PLC0415 - rarely needed

    path = Path(folder).absolute()
    return {"folder": str(path), "sha256": read_image_model(path).sha256}


def stage_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of what is to follow a training."""
    for option in (
        publish_option,
        click.option(
            "--alias", metavar="NAME", help=f"Alias to give with --promote. Default: {CHAMPION}."
        ),
        click.option(
            "--policy",
            type=PathArgument(dir_okay=False),
            metavar="FILE",
            help="Rules of the gate, for --promote.",
        ),
        click.option(
            "--promote",
            is_flag=True,
            help="Then let the gate decide whether it becomes the champion. Evaluates it first.",
        ),
        judge_option("--evaluate-judge"),
        click.option(
            "--evaluate-count", type=int, metavar="N", help="Samples to make for --evaluate."
        ),
        click.option(
            "--evaluate-on",
            metavar="D",
            help="Dataset for --evaluate. Default: D@champion, the version of --dataset that the "
            "champion was trained on, or that of the training if there is none that fits.",
        ),
        click.option("--evaluate", is_flag=True, help="Then measure the new version."),
    ):
        function = option(function)
    return function


def stages_of(first: Spec, options: Mapping[str, Any]) -> tuple[Spec, ...]:
    """The jobs to run after a training or a generate job, each after the one before it.

    Raises `click.UsageError` for an option without the one that it belongs to, and `BadInput` or
    `Refused` for a bad policy.
    """
    evaluates, promotes = options.get("evaluate"), options.get("promote")
    needing = ("evaluate_on", "evaluate_count", "evaluate_judge")
    _refuse_alone(options, needing, evaluates or promotes, "--evaluate")
    _refuse_alone(options, ("policy", "alias"), promotes, "--promote")
    then = _publications(first, options.get("publish") or ())
    if not (evaluates or promotes) or not isinstance(first, Train | Finetune):
        return then
    model, alias = Reference.parse(first.model).name, options["alias"] or CHAMPION
    own = f"{Reference.parse(first.dataset).name}@{alias}"
    data = {"model": model, "dataset": options["evaluate_on"] or own}
    against = {"against": f"{model}@{alias}"} if promotes else {}
    how = {"count": options["evaluate_count"], "judge": read_judge(options["evaluate_judge"])}
    evaluation = {"kind": "evaluate", **how, **data, **against}
    if not promotes:
        return parse_spec(evaluation), *then
    promotion = {"kind": "promote", "alias": alias, "policy": _policy(options["policy"]), **data}
    return parse_spec(evaluation), parse_spec(promotion), *then


def _publications(first: Spec, names: Sequence[str]) -> tuple[Spec, ...]:
    """What is to be published where, in the end: samples, or the version that was trained."""
    made = {"model": Reference.parse(first.model).name}
    if isinstance(first, Generate):
        made = {"model": first.model, "job": BEFORE}
    return tuple(parse_spec({"kind": "publish", "target": name, **made}) for name in names)


def _policy(path: str | None) -> dict[str, Any]:
    if path is None:
        return {}
    from worker.gate.policy import read_policy  # noqa: PLC0415 - needs numpy, which is slow

    return read_policy(Path(path))


def _refuse_alone(
    options: Mapping[str, Any], names: tuple[str, ...], given: object, needed: str
) -> None:
    for name in names:
        if options.get(name) is not None and not given:
            raise click.UsageError(f"--{name.replace('_', '-')} belongs to {needed}: give both")
