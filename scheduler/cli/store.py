"""`genmill store`: what is in the object store."""

import click

from scheduler.cli.options import as_json
from scheduler.cli.record import open_record


@click.group("store")
def store() -> None:
    """The object store."""


@store.command("encrypt")
@as_json
def encrypt(as_json: bool) -> None:
    """Encrypt everything in a store that is in use as a plain one; print how much it was.

    Stop all workers and schedulers first, and set GENMILL_STORE_ENCRYPTION for them all afterwards.
    Plain objects go at the end, when everything is there encrypted: until then, the store needs
    twice the space. If it is interrupted, run it again. Backups stay as they are.

    \b
    genmill down
    GENMILL_STORE_ENCRYPTION=aes-256-gcm genmill store encrypt
    """
    from db.errors import Refused
    from scheduler.cli.recovery import end_progress, show_progress
    from scheduler.machine.home import supervisor_pid
    from scheduler.output.render import print_json, to_count, to_size
    from scheduler.recovery.encryption import encrypt_store

    with open_record() as services:
        if pid := supervisor_pid(services.settings):
            raise Refused(
                f"`genmill up` runs in this home, process {pid}", remedy="run `genmill down` first"
            )
        done = encrypt_store(services, show=show_progress)
    end_progress()
    if as_json:
        print_json(vars(done))
        return
    click.echo(f"{to_count(done.objects, 'object')} encrypted, {to_size(done.size_bytes)}")
    click.echo(f"{to_count(done.deleted, 'plain object')} deleted", err=True)
