"""How the running command shows what it prints: which fields of JSON, and long values in full.

Options say so before the command runs. Click's context carries it, so that no command hands it on.
"""

from dataclasses import dataclass

import click

_KEY = "genmill.view"


@dataclass
class View:
    """The fields that `--json` names (none: all), and whether `--full` was given."""

    fields: tuple[str, ...] = ()
    full: bool = False


def current_view() -> View:
    """That of the running command; outside of commands, the default one."""
    context = click.get_current_context(silent=True)
    if context is None:
        return View()
    found: View = context.meta.setdefault(_KEY, View())
    return found
