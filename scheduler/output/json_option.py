"""The option `--json [FIELDS]`: alone it prints whole documents, with FIELDS only these fields.

`--json FIELDS` and `--json ARGUMENT` look alike. The next word is taken for fields if the command
has no use for it as an argument, or if it has a comma and names a field. `--json=FIELDS` always
means fields.
"""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from scheduler.output.view import current_view

if TYPE_CHECKING:
    from click.parser import _OptionParser, _ParsingState
    from click.shell_completion import CompletionItem

_ALL = ""  # FIELDS for all of them


class JsonOption(click.Option):
    """An option whose value may be left out, and is not mistaken for an argument."""

    def add_to_parser(self, parser: "_OptionParser", ctx: click.Context) -> None:
        """Have the parser look at the word after a bare `--json` before it takes it."""
        super().add_to_parser(parser, ctx)
        process = parser._process_opts  # private: Click has no way to decide by the next word

        def process_or_leave(word: str, state: "_ParsingState") -> None:
            if word in self.opts and not _are_fields(ctx, state.largs, state.rargs):
                word = f"{word}={_ALL}"
            process(word, state)

        parser._process_opts = process_or_leave  # type: ignore[method-assign,assignment] # as above

    def shell_complete(self, ctx: click.Context, incomplete: str) -> "list[CompletionItem[str]]":
        """Complete the last of the fields."""
        from click.shell_completion import CompletionItem  # noqa: PLC0415 - for completion alone

        from scheduler.output.schema import fields_of  # noqa: PLC0415 - as above

        before, comma, last = incomplete.rpartition(",")
        return [
            CompletionItem(f"{before}{comma}{name}")
            for name in fields_of(_command(ctx))
            if name.startswith(last)
        ]


def _choose(ctx: click.Context, _: click.Parameter, value: str | None) -> bool:
    """Whether to print JSON; the fields go into the view. Raises `Refused` for unknown ones."""
    if value and not ctx.resilient_parsing:
        current_view().fields = _parse(_command(ctx), value)
    return value is not None


as_json = click.option(
    "--json",
    "as_json",
    cls=JsonOption,
    is_flag=False,
    flag_value=_ALL,
    metavar="[FIELDS]",
    callback=_choose,
    help="Print JSON; with FIELDS, such as id,status, only these.",
)


def _parse(command: str, text: str) -> tuple[str, ...]:
    from db.errors import Refused  # noqa: PLC0415 - few commands are asked for fields
    from scheduler.output.schema import fields_of  # noqa: PLC0415 - as above

    known = fields_of(command)
    fields = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in fields:
        if known and name not in known:
            error = Refused.unknown("field", name, known, of=f"the JSON of `genmill {command}`")
            raise Refused(error.message, remedy=f"its fields are {', '.join(known)}")
    return fields


def _are_fields(ctx: click.Context, before: Sequence[str], after: Sequence[str]) -> bool:
    """Whether the first of the words `after` names fields; `before` are the arguments so far."""
    if not after or _is_option(after[0]):
        return False
    arguments = [each for each in ctx.command.params if isinstance(each, click.Argument)]
    others = len(before) + sum(1 for _ in _arguments_in(after[1:], ctx.command))
    if others >= sum(each.nargs if each.nargs > 0 else math.inf for each in arguments):
        return True
    if others < sum(max(each.nargs, 1) for each in arguments if each.required):
        return False
    from scheduler.output.schema import fields_of  # noqa: PLC0415 - seldom needed

    named = after[0].split(",")
    return len(named) > 1 and not set(fields_of(_command(ctx))).isdisjoint(named)


def _arguments_in(words: Sequence[str], command: click.Command) -> Iterator[str]:
    """The words that are neither options nor their values."""
    options = (each for each in command.params if isinstance(each, click.Option))
    valued = {
        name
        for each in options
        if not (each.is_flag or each.count or isinstance(each, JsonOption))
        for name in each.opts
    }
    left: Any = iter(words)
    for word in left:
        if word == "--":
            yield from left
        elif word in valued:
            next(left, None)
        elif not _is_option(word):
            yield word


def _is_option(word: str) -> bool:
    # a negative number is an argument
    return word.startswith("-") and word != "-" and not word[1:].isdigit()


def _command(ctx: click.Context) -> str:
    """The command's words without `genmill`."""
    return ctx.command_path.partition(" ")[2]
