"""`genmill help`: the help of any command, as its `--help` prints it."""

from collections.abc import Sequence

import click


def _complete(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    try:
        group = _find(context, context.params.get("words") or ())
    except click.UsageError:
        return []
    names = group.command.list_commands(group) if isinstance(group.command, click.Group) else []
    return [name for name in names if name.startswith(incomplete)]


@click.command("help")
@click.argument("words", nargs=-1, metavar="[COMMAND]...", shell_complete=_complete)
@click.pass_context
def help_(context: click.Context, words: tuple[str, ...]) -> None:
    """Show the help of a command, as its --help does.

    \b
    genmill help job list
    """
    from scheduler.output.paging import paged

    found = _find(context, words)
    with paged():
        click.echo(found.get_help())


def _find(context: click.Context, words: Sequence[str]) -> click.Context:
    """A context of the command with these words. Raises `UsageError` with the nearest spelling."""
    found = context.find_root()
    for word in words:
        if not isinstance(found.command, click.Group):
            raise click.UsageError(f"`{found.command_path}` has no command {word!r}", ctx=found)
        command = found.command.get_command(found, word)
        if command is None:
            raise click.NoSuchCommand(word, possibilities=found.command.commands, ctx=found)
        found = click.Context(command, info_name=word, parent=found)
    return found
