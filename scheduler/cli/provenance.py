"""`genmill provenance`: whether files were made here, and are as they were made."""

import click

from scheduler.cli import ledger
from scheduler.cli.verify import verify


@click.group("provenance")
def provenance() -> None:
    """Show where files come from, and that they are unchanged."""


for command in (verify, ledger.proof, ledger.audit):
    provenance.add_command(command)
