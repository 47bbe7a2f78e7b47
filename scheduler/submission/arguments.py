"""The words of `genmill enqueue`, turned into an `EnqueueCommand`. Touches no service.

The command line and the schedules read the same words, so what `schedule add NAME -- enqueue ...`
repeats is exactly what a person could type. Files named in the words are read here.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from db.errors import Refused
from scheduler.submission.json_lines import read_lines, read_prompts
from scheduler.submission.templates import find_template, read_filled
from worker.specs import Finetune, Generate, Train, parse_spec


@dataclass(frozen=True)
class EnqueueCommand:
    """One enqueue command: a spec, or the lines of a batch, and how to enqueue it."""

    spec: Train | Finetune | Generate | None = None
    lines: tuple[str, ...] = ()  # of a batch's file; empty with a spec
    priority: int = 0
    idempotency_key: str | None = None
    wait: bool = False
    dry_run: bool = False
    as_json: bool = False


def parse_command(words: Sequence[str]) -> EnqueueCommand:
    """Read the words of an enqueue command, as in `["enqueue", "train", "gan", ...]`.

    Raises `Refused` where a person typing them would have been refused.
    """
    if len(words) < 2 or words[0] != "enqueue":
        known = "|".join(COMMANDS)
        raise Refused(f"expected an enqueue command, as in enqueue {known} ...; got {words!r}")
    group = click.Group("enqueue", commands=COMMANDS)
    try:
        command: EnqueueCommand = group.main(
            list(words[1:]),
            prog_name="genmill enqueue",
            standalone_mode=False,
            help_option_names=[],  # help would be printed, and enqueue nothing
        )
    except click.ClickException as error:
        raise Refused(f"enqueue command: {error.format_message()}") from None
    return command


def parse_repeated(words: Sequence[str]) -> EnqueueCommand:
    """Read the words that a schedule repeats; options that make no sense repeated are refused."""
    command = parse_command(words)
    for option, given in (
        ("--wait", command.wait),
        ("--dry-run", command.dry_run),
        ("--idempotency-key", command.idempotency_key is not None),
    ):
        if given:
            raise Refused(f"{option} makes no sense in a schedule: leave it out")
    return command


def anchor_files(words: Sequence[str]) -> list[str]:
    """The words with file names made absolute, so that a scheduler started elsewhere finds them."""
    command = COMMANDS.get(words[1]) if len(words) > 1 else None
    if command is None:
        return list(words)
    given = command.make_context(words[1], list(words[2:]), resilient_parsing=True).params
    named = given.get("file") or given.get("prompts")
    return [_anchor(word, named) if place > 1 else word for place, word in enumerate(words)]


def _anchor(word: str, named: str | None) -> str:
    option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    if value != named:
        return word
    return f"{option}{equals}{Path(value).absolute()}"


def parse_settings(pairs: Sequence[str]) -> dict[str, Any]:
    """Turn `key=value` words into parameters: JSON where it parses, else the text itself."""
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise Refused(f"--set takes key=value, got {pair!r}")
        if key in settings:
            raise Refused(f"--set {key} was given twice: {settings[key]!r} and {value!r}")
        settings[key] = _parse_value(key, value)
    return settings


def _parse_value(key: str, value: str) -> Any:
    def refuse(constant: str) -> Any:
        raise Refused(f"--set {key}: {constant} is not a number that can be used")

    try:
        return json.loads(value, parse_constant=refuse)
    except (json.JSONDecodeError, RecursionError):
        return value


def _enqueue_options(function: Callable[..., EnqueueCommand]) -> Callable[..., EnqueueCommand]:
    for option in (
        click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout."),
        click.option("--dry-run", is_flag=True, help="Show the spec and its cost; store nothing."),
        click.option(
            "--idempotency-key", metavar="K", help="The same key gives the same job id back."
        ),
        click.option(
            "--priority", type=int, default=0, metavar="N", help="Higher runs first (default 0)."
        ),
        click.option("--wait", is_flag=True, help="Wait; exit 1 where it does not succeed."),
    ):
        function = option(function)
    return function


def _training_options(function: Callable[..., EnqueueCommand]) -> Callable[..., EnqueueCommand]:
    for option in (
        click.option("--seed", type=int, default=0, metavar="N", help="Random seed (default 0)."),
        click.option(
            "--max-seconds",
            type=float,
            metavar="S",
            help="Stop after S seconds; with neither limit, the family's default_seconds.",
        ),
        click.option("--max-steps", type=int, metavar="N", help="Stop after N steps."),
        _SET,
        click.option("--dataset", required=True, metavar="D", help="NAME or NAME:VERSION."),
    ):
        function = option(function)
    return function


_SET = click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="A parameter; see family show."
)


@click.command("train")
@click.argument("family")
@click.option("--name", "model", required=True, metavar="MODEL", help="The model's name.")
@_training_options
@_enqueue_options
def train(settings: tuple[str, ...], **words: Any) -> EnqueueCommand:
    """Train a new version of a model from nothing.

    \b
    genmill enqueue train gan --dataset mnist --name digits --max-seconds 180
    genmill enqueue train gpt --dataset books --name prose --set layers=4 --set width=128
    """
    return _command({"kind": "train", "params": parse_settings(settings)}, words)


@click.command("finetune")
@click.argument("model")
@_training_options
@_enqueue_options
def finetune(settings: tuple[str, ...], **words: Any) -> EnqueueCommand:
    """Train a version further: a new one whose parent it is.

    MODEL is name, name@alias or name:3.

    \b
    genmill enqueue finetune digits:1 --dataset my-hand --max-steps 500
    """
    return _command({"kind": "finetune", "params": parse_settings(settings)}, words)


@click.command("generate")
@click.argument("model")
@click.option("--count", type=int, metavar="N", help="How many samples.")
@click.option(
    "--seed", type=int, default=0, metavar="N", help="The same seed makes the same samples."
)
@click.option("--label", metavar="L", help="One class only; else the classes in turn.")
@click.option("--dataset", metavar="D", help="Images to make samples from; see family show.")
@click.option("--prompt", metavar="TEXT", multiple=True, help="What to go on from; repeatable.")
@click.option("--prompts", metavar="FILE.jsonl", help='Lines of {"prompt", "custom_id"}.')
@click.option("--template", metavar="T", help="Filled by the lines' fields; see template list.")
@_SET
@_enqueue_options
def generate(
    prompt: tuple[str, ...],
    prompts: str | None,
    template: str | None,
    count: int | None,
    settings: tuple[str, ...],
    **words: Any,
) -> EnqueueCommand:
    """Make samples with a model.

    MODEL is name, name@alias or name:3.

    \b
    genmill enqueue generate digits --count 1000 --label 3
    genmill enqueue generate prose --count 50 --prompt "Once upon" --set temperature=0.8
    genmill enqueue generate faces --count 9 --dataset mine --set mode=reconstruct
    """
    if prompt and prompts:
        raise click.UsageError("give --prompt or --prompts, not both")
    if template and not prompts:
        raise click.UsageError("--template is filled from --prompts FILE.jsonl: give both")
    given = _read_prompts(prompts, template) if prompts else [{"prompt": text} for text in prompt]
    if count is None and not prompts:
        raise click.UsageError("missing option '--count'")
    data = {
        "kind": "generate",
        "prompts": given,
        "count": len(given) if count is None else count,
        "params": parse_settings(settings),
    }
    return _command(data, words)


@click.command("batch")
@click.argument("file")
@_enqueue_options
def batch(file: str, **how: Any) -> EnqueueCommand:
    """Enqueue one spec a line; prints the batch id.

    FILE.jsonl is checked as a whole first, and nothing is enqueued where a line is wrong.

    \b
    {"custom_id": "a", "kind": "generate", "model": "digits", "count": 100, "label": "3"}
    {"custom_id": "b", "kind": "generate", "model": "prose", "count": 5}
    """
    return EnqueueCommand(lines=tuple(read_lines(file)), **how)


COMMANDS: dict[str, click.Command] = {
    "train": train,
    "finetune": finetune,
    "generate": generate,
    "batch": batch,
}


def _read_prompts(path: str, template: str | None) -> list[dict[str, Any]]:
    return read_filled(path, find_template(template)) if template else read_prompts(path)


_HOW = ("priority", "idempotency_key", "wait", "dry_run", "as_json")


def _command(data: dict[str, Any], words: dict[str, Any]) -> EnqueueCommand:
    """Split what was typed into the spec and the way it is enqueued."""
    how = {option: words.pop(option) for option in _HOW}
    return EnqueueCommand(spec=parse_spec(data | words), **how)
