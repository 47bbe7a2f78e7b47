"""Parsing the words of the enqueue command that a schedule repeats."""

import shlex
from collections.abc import Sequence
from pathlib import Path

import click

from db.errors import Refused
from scheduler.submission.arguments import COMMANDS, ROOTS, EnqueueCommand
from scheduler.submission.json_lines import STDIN
from worker.mark_profile import names_file


def parse_command(words: Sequence[str]) -> EnqueueCommand:
    """Parse the arguments of an enqueue command, as in `["enqueue", "train", "gan", ...]`.

    Raises `Refused` for what the command line would refuse.
    """
    if not words or words[0] not in ROOTS or len(words) < 2:
        raise Refused(
            f"not an enqueue command: {shlex.join(words)!r}",
            remedy=f"write `enqueue {'|'.join(COMMANDS)} ...` or `publish ...`",
        )
    root = ROOTS[words[0]]
    try:
        command: EnqueueCommand = root.main(
            list(words[1:]),
            prog_name=f"genmill {words[0]}",
            standalone_mode=False,
            help_option_names=[],  # --help would print help and enqueue nothing
        )
    except click.ClickException as error:
        raise Refused(
            f"{words[0]} command: {error.format_message().rstrip('.')}",
            remedy=f"see `genmill {words[0]} --help`",
        ) from None
    return command


def parse_repeated(words: Sequence[str]) -> EnqueueCommand:
    """Parse the arguments that a schedule repeats; refuse options that only make sense once."""
    command = parse_command(words)
    for option, given in (
        ("--wait", command.wait),
        ("--timeout", command.timeout is not None),
        ("--dry-run", command.dry_run),
        ("--idempotency-key", command.idempotency_key is not None),
    ):
        if given:
            raise Refused(f"{option} makes no sense in a schedule", remedy="leave it out")
    return command


def make_paths_absolute(words: Sequence[str]) -> list[str]:
    """The arguments with absolute file names, for a scheduler that runs in another folder.

    Raises `Refused` if one is the standard input.
    """
    named = _files(words)
    if STDIN in named:
        raise Refused(
            "a schedule cannot read the standard input",
            remedy="name a file, which is read at each run",
        )
    absolute = list(words[:2])
    for word in words[2:]:
        option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        path = f"{option}{equals}{Path(value).absolute()}"
        absolute.append(path if value in named else word)
    return absolute


def _files(words: Sequence[str]) -> set[str]:
    """The files that an enqueue command names."""
    command = COMMANDS.get(words[1]) if len(words) > 1 and words[0] == "enqueue" else None
    if command is None:
        return set()
    given = command.make_context(words[1], list(words[2:]), resilient_parsing=True).params
    names = ("file", "prompts", "policy", "judge", "evaluate_judge")
    named = {given[name] for name in names if given.get(name)}
    marks = given.get("marks") or ""
    return named | ({marks} if names_file(marks) else set())
