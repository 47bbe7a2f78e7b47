"""The commands `genmill enqueue ...` and `genmill publish`: each makes an `EnqueueCommand`.

The command line and the schedules parse the same arguments, so `schedule add NAME -- enqueue ...`
repeats exactly what could be typed. Files of prompts are read here; a batch's file is read when its
lines are checked. Touches no service.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import click
from pydantic_core import PydanticCustomError

from db.errors import BadInput, Refused
from scheduler.submission.durations import Duration
from scheduler.submission.enqueue_options import SEED, SET, enqueue_options, training_options
from scheduler.submission.json_lines import refuse_constant
from scheduler.submission.path_arguments import PathArgument
from scheduler.submission.prompts import find_template, read_prompts
from scheduler.submission.stages import OPTIONS as STAGES
from scheduler.submission.stages import judge_option, publish_option, read_judge, stages_of
from worker.acceptance import parse_rules
from worker.mark_profile import Profile
from worker.specs import Spec, parse_spec


@dataclass(frozen=True)
class EnqueueCommand:
    """One enqueue command: a spec or the file of a batch, and how to enqueue it."""

    spec: Spec | None = None
    then: tuple[Spec, ...] = ()  # jobs that run after it, each after the one before
    file: str = ""  # of a batch's lines; empty with a spec
    lines: tuple[str, ...] = ()  # of a batch, in place of a file
    priority: int = 0
    idempotency_key: str | None = None
    wait: bool = False
    timeout: timedelta | None = None
    dry_run: bool = False
    as_json: bool = False


def parse_settings(pairs: Sequence[str]) -> dict[str, Any]:
    """Turn `key=value` pairs into parameters: JSON if it parses, else the text itself."""
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise Refused(f"--set {pair!r}: expected key=value")
        if key in settings:
            raise Refused(f"--set {key} was given twice: {settings[key]!r} and {value!r}")
        try:
            settings[key] = json.loads(value, parse_constant=refuse_constant)
        except BadInput as error:
            raise Refused(f"--set {key}: {error.message}") from None
        except (json.JSONDecodeError, RecursionError):
            settings[key] = value
    return settings


@click.command("train")
@click.argument("family")
@click.option("--name", "model", required=True, metavar="MODEL", help="Name of the model.")
@training_options
@enqueue_options
def train(settings: tuple[str, ...], **options: Any) -> EnqueueCommand:
    """Train a model from scratch.

    Training under an existing name adds a version to that model.

    \b
    genmill enqueue train gan --dataset mnist --name digits --max-seconds 180
    genmill enqueue train gpt --dataset books --name prose --set layers=4
    """
    return _command({"kind": "train", "params": parse_settings(settings)}, options)


@click.command("finetune")
@click.argument("model")
@training_options
@enqueue_options
def finetune(settings: tuple[str, ...], **options: Any) -> EnqueueCommand:
    """Train a model version further, into a new version.

    MODEL is NAME, NAME@ALIAS or NAME:VERSION.

    \b
    genmill enqueue finetune digits:1 --dataset my-hand --max-steps 500
    genmill enqueue finetune digits --dataset my-hand --evaluate --promote
    """
    return _command({"kind": "finetune", "params": parse_settings(settings)}, options)


@click.command("generate")
@click.argument("model")
@click.option("--count", type=int, metavar="N", help="Number of samples.")
@SEED
@click.option(
    "--accept",
    metavar="RULES",
    help="Make samples until --count of them meet these rules, separated by commas: "
    "confidence>=P, agreement=yes, near_duplicates=no, copies_of_training=no, length>=N, "
    "length<=N.",
)
@click.option(
    "--tries",
    type=click.IntRange(1),
    metavar="N",
    help="With --accept: fail after N samples for each that is wanted. Default: 10.",
)
@click.option("--label", metavar="L", help="Samples of this class only. Default: all in turn.")
@click.option(
    "--dataset",
    metavar="D",
    help="Images to make the samples from, if the family takes any: NAME or NAME:VERSION.",
)
@click.option("--prompt", metavar="TEXT", multiple=True, help="Prompt; repeatable.")
@click.option(
    "--prompts",
    type=PathArgument(dir_okay=False, allow_dash=True),
    metavar="FILE.jsonl",
    help='Prompts or messages, one {"prompt", "custom_id"} per line; `-`: the standard input.',
)
@click.option(
    "--template",
    metavar="T",
    help="Template to fill with the lines of --prompts. See `genmill template list`.",
)
@click.option(
    "--marks",
    type=PathArgument(dir_okay=False),
    metavar="PROFILE",
    help="What the samples carry about themselves: none, eu-art50, cn-gb45438, or your own profile "
    "in a FILE.toml. Default: that of the model, or of GENMILL_MARKS.",
)
@SET
@publish_option
@enqueue_options
def generate(
    prompt: tuple[str, ...],
    prompts: str | None,
    template: str | None,
    count: int | None,
    settings: tuple[str, ...],
    accept: str | None,
    tries: int | None,
    marks: str | None,
    **options: Any,
) -> EnqueueCommand:
    """Generate samples with a model.

    MODEL is NAME, NAME@ALIAS or NAME:VERSION. Prompts are used in turn; the default --count with
    --prompts is one sample per line.

    \b
    genmill enqueue generate digits --count 9 --label 3 --accept 'confidence>=0.8'
    genmill enqueue generate prose --count 5 --prompt "Once" --set temperature=0.8
    genmill enqueue generate faces --count 9 --dataset mine --set mode=reconstruct
    genmill enqueue generate digits --count 1000 --publish shelf
    """
    if prompt and prompts:
        raise click.UsageError("give --prompt or --prompts, not both")
    if template and not prompts:
        raise click.UsageError("--template is filled from --prompts FILE.jsonl: give both")
    if count is None and not prompts:
        raise click.UsageError("missing option '--count'")
    given = [{"prompt": text} for text in prompt]
    if prompts:
        given = read_prompts(prompts, find_template(template) if template else None)
    data = {
        "kind": "generate",
        "prompts": given,
        "count": len(given) if count is None else count,
        "params": parse_settings(settings),
        "accept": _rules(accept, tries),
        "marks": None if marks is None else _profile(marks),
    }
    return _command(data, options)


@click.command("evaluate")
@click.argument("model")
@click.option("--dataset", required=True, metavar="D", help="Dataset: NAME or NAME:VERSION.")
@click.option(
    "--count",
    type=int,
    metavar="N",
    help="Samples to make. Default: as many as the split has, at most 10,000 images, 500 sounds or "
    "200 texts.",
)
@click.option(
    "--split",
    type=click.Choice(["test", "validation"]),
    default="test",
    show_default=True,
    help="The held-out data to compare with.",
)
@click.option(
    "--seed",
    type=int,
    default=0,
    show_default=True,
    metavar="N",
    help="Random seed. Only evaluations of one seed can be compared.",
)
@click.option("--against", metavar="MODEL", help="A version to evaluate too, unless it has been.")
@judge_option("--judge")
@SET
@enqueue_options
def evaluate(settings: tuple[str, ...], judge: str | None, **options: Any) -> EnqueueCommand:
    """Measure a model version against held-out data.

    MODEL is NAME, NAME@ALIAS or NAME:VERSION. The numbers are shown by `genmill model show`; the
    job's report, in HTML and PNG, is downloaded by `genmill artifact download`. A version is
    measured once under one protocol: the dataset version, split, count, seed, judge and --set
    settings.

    \b
    genmill enqueue evaluate digits --dataset mnist
    genmill enqueue evaluate digits:2 --dataset mnist --against digits@champion
    genmill enqueue evaluate faces --dataset photos --judge ./dinov2-small
    """
    data = {"kind": "evaluate", "params": parse_settings(settings), "judge": read_judge(judge)}
    return _command(data, options)


def _profile(reference: str) -> Profile:
    from worker.marks.profiles import looked_up  # noqa: PLC0415 - loads what reads every medium

    return looked_up(Profile(name=reference))


def _rules(accept: str | None, tries: int | None) -> dict[str, Any] | None:
    """The rules of an order as data."""
    if accept is None:
        if tries is not None:
            raise click.UsageError("--tries limits an order with --accept: give both")
        return None
    try:
        return parse_rules(accept) | ({} if tries is None else {"tries": tries})
    except PydanticCustomError as error:
        raise click.UsageError(f"--accept: {error.message()}") from None


@click.command("batch")
@click.argument("file", type=PathArgument(dir_okay=False, allow_dash=True), metavar="FILE.jsonl")
@enqueue_options
def batch(file: str, **how: Any) -> EnqueueCommand:
    """Submit many jobs, one spec per line; print the batch id.

    Every line is checked first; if one is wrong, nothing is enqueued. FILE.jsonl may be `-`, the
    standard input. A line without "seed" draws its own.

    \b
    {"custom_id": "a", "kind": "generate", "model": "digits", "count": 100}
    {"custom_id": "b", "kind": "generate", "model": "prose", "count": 5}
    """
    return EnqueueCommand(file=file, **how)


@click.command("publish")
@click.argument("what", metavar="JOB|BATCH|MODEL")
@click.option("--target", required=True, metavar="NAME", help="Where to. See `genmill target`.")
@click.option(
    "--accept",
    metavar="RULES",
    help="Publish only samples that meet these rules, separated by commas: confidence>=P, "
    "agreement=yes, copies_of_training=no, length>=N, length<=N.",
)
@click.option("--take-down", is_flag=True, help="Take down what was published, at the target.")
@click.option(
    "--expires",
    type=Duration(),
    metavar="30d",
    help="Take it down again after this time span. Default: as the target says.",
)
@enqueue_options
def publish(
    what: str,
    target: str,
    accept: str | None,
    take_down: bool,
    expires: timedelta | None,
    **how: Any,
) -> EnqueueCommand:
    """Publish samples of a job or batch, or a model version, at a target.

    Each item is verified before it is put there, with its marks, and fetched back afterwards; what
    cannot be verified is not published. Of a job with --accept, only accepted samples are
    published. Published again, an item is compared with what is there, and put back if it is
    missing or altered; it is there once. Prints the job's id.

    \b
    genmill publish 0199c0de --target shelf --wait
    genmill publish digits@champion --target hub
    genmill publish 0199c0de --target shelf --take-down --wait
    """
    if take_down and expires:
        raise click.UsageError("--expires is of what is published: leave it out with --take-down")
    data = {"kind": "publish", "target": target, "model": what, "take_down": take_down}
    data |= {"accept": _rules(accept, None)}
    spec = parse_spec(data | {"expires_after_s": expires and expires.total_seconds()})
    return EnqueueCommand(spec=spec, **how)


COMMANDS: dict[str, click.Command] = {
    "train": train,
    "finetune": finetune,
    "generate": generate,
    "evaluate": evaluate,
    "batch": batch,
}
ROOTS: dict[str, click.Command] = {
    "enqueue": click.Group("enqueue", commands=COMMANDS),
    "publish": publish,
}


def _command(data: dict[str, Any], options: dict[str, Any]) -> EnqueueCommand:
    """The command whose spec has the fields `data` and those of `options` that are a spec's."""
    how = ("priority", "idempotency_key", "wait", "timeout", "dry_run", "as_json")
    fields = {name: options[name] for name in options.keys() - {*how, *STAGES}}
    if fields["seed"] is None:
        del fields["seed"]
    spec = parse_spec(data | fields)
    then = stages_of(spec, options)
    return EnqueueCommand(spec=spec, then=then, **{name: options[name] for name in how})
