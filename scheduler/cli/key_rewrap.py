"""`genmill key rewrap`: changing the installation key."""

from pathlib import Path

import click

from scheduler.cli.options import as_json
from scheduler.cli.record import open_record
from scheduler.submission.path_arguments import PathArgument


@click.command("rewrap")
@click.option(
    "--old-key-file",
    type=PathArgument(path_type=Path),
    metavar="FILE",
    help="The file of the installation key until now.",
)
@click.option(
    "--old-key-command",
    metavar="COMMAND",
    help="The command that wrapped keys until now, as in GENMILL_KEY_COMMAND.",
)
@as_json
def rewrap(old_key_file: Path | None, old_key_command: str | None, as_json: bool) -> None:
    """Wrap all keys with another installation key: that of the settings as they are now.

    The keys themselves stay, and no object in the store is written again but the store's wrapped
    key. Restart every worker and scheduler with the new settings afterwards, or move the new file
    into the place of the old one: until then, jobs that use keys on record wait for a worker that
    has the new key, and nothing is counted against them. If it is interrupted, run it again. Keep
    the old key while you keep backups from before.

    \b
    openssl rand -hex 32 > new.key && chmod 400 new.key
    GENMILL_KEY_FILE=$PWD/new.key genmill key rewrap --old-key-file old.key
    """
    from db.path_errors import require_file
    from scheduler.output.render import print_json, to_count
    from worker.identity import who
    from worker.keys.master import CommandMaster, FileMaster, Master
    from worker.services.rewrapping import rewrap as wrap_anew

    if (old_key_file is None) == (old_key_command is None):
        raise click.UsageError("give --old-key-file or --old-key-command, and not both")
    old: Master
    if old_key_file is None:
        old = CommandMaster(str(old_key_command), given_as="--old-key-command")
    else:
        require_file(old_key_file)
        old = FileMaster(old_key_file)
        old.wrap(b"", "a trial")  # it raises for what is no key
    with open_record() as services:
        done = wrap_anew(services, old, who=who())
    if as_json:
        print_json(vars(done))
        return
    if done.keys or not done.store:
        click.echo(f"{to_count(done.keys, 'key')} wrapped anew")
    if done.store:
        click.echo("the key of the object store wrapped anew")
    if done.already:
        click.echo(f"{to_count(done.already, 'key')} had been wrapped so before", err=True)
