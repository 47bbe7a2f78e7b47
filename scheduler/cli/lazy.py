"""A group that knows its commands' names and short help, and imports one only when it is called.

Every command of `genmill` imports what it uses inside its body as well, so that `genmill --help`
costs little more than importing Click.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import click


@dataclass(frozen=True)
class Entry:
    """Where a command is, as `module:attribute`, and what it does in a line."""

    target: str
    short_help: str

    def load(self) -> click.Command:
        """Import the command."""
        module, attribute = self.target.split(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command


Sections = Mapping[str, Mapping[str, Entry]]  # heading -> name -> entry


class LazyGroup(click.Group):
    """A group made of sections of entries. Its help and its completion import none of them."""

    def __init__(self, name: str, sections: Sections, **extra: Any) -> None:
        self.sections = sections
        self.entries = {key: entry for part in sections.values() for key, entry in part.items()}
        # Stand-ins by name: Click looks here for the nearest spelling of an unknown command.
        stand_ins = {
            key: click.Command(key, help=entry.short_help) for key, entry in self.entries.items()
        }
        super().__init__(name, commands=stand_ins, **extra)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the sections."""
        return list(self.entries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command called `cmd_name`; None where there is none."""
        entry = self.entries.get(cmd_name)
        return entry.load() if entry else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one table a section."""
        width = max(map(len, self.entries))
        for heading, part in self.sections.items():
            with formatter.section(heading):
                formatter.write_dl([(key.ljust(width), part[key].short_help) for key in part])
