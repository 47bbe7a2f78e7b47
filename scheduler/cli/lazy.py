"""Lazy imports: commands, and the values that an option may take.

A command imports what it uses in its body, so `genmill --help` takes little longer than importing
Click.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_args

import click


def load(target: str) -> Any:
    """Import what is at `target`, a `module:attribute`."""
    module, attribute = target.split(":")
    return getattr(importlib.import_module(module), attribute)


class DeclaredChoice(click.Choice[str]):
    """A choice among the values of an enum, a tuple or a `Literal` declared at `target`."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.case_sensitive = True

    @cached_property
    def choices(self) -> tuple[str, ...]:  # type: ignore[override] # Click's is set at once
        """The values, imported on first use."""
        declared = load(self.target)
        return tuple(str(value) for value in get_args(declared) or declared)


@dataclass(frozen=True)
class Entry:
    """Where a command is, as `module:attribute`, and its short help."""

    target: str
    short_help: str

    def load(self) -> click.Command:
        """Import the command."""
        command: click.Command = load(self.target)
        return command


Sections = Mapping[str, Mapping[str, Entry]]  # heading -> name -> entry


class LazyGroup(click.Group):
    """A group of commands in sections. Its help and its completion import none of them."""

    def __init__(self, name: str, sections: Sections, **extra: Any) -> None:
        self.sections = sections
        self.entries = {key: entry for part in sections.values() for key, entry in part.items()}
        # Click looks at these for the nearest spelling of an unknown command
        placeholders = {
            key: click.Command(key, help=entry.short_help) for key, entry in self.entries.items()
        }
        super().__init__(name, commands=placeholders, **extra)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the sections."""
        return list(self.entries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command called `cmd_name`; None if there is no such command."""
        entry = self.entries.get(cmd_name)
        command = entry.load() if entry else None
        if command and ctx and ctx.resilient_parsing:  # the shell asks for completions
            load("scheduler.cli.completion:add_completions")(command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one table per section."""
        width = max(map(len, self.entries))
        for heading, part in self.sections.items():
            with formatter.section(heading):
                formatter.write_dl([(key.ljust(width), part[key].short_help) for key in part])
