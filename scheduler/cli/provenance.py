"""`genmill provenance`: whether files were made here, and are as they were made."""

import click

from scheduler.cli import ledger


@click.group("provenance")
def provenance() -> None:
    """Show where files come from, and that they are unchanged."""


for command in (ledger.proof, ledger.audit):
    provenance.add_command(command)
