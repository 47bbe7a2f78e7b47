"""`genmill model alias|compare|promote|rollback|history`: which version a name means, and why."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from db.errors import NotPromoted
from scheduler.cli.options import as_json, shown
from scheduler.cli.private import shared_as_usual
from scheduler.cli.record import open_record
from scheduler.submission.path_arguments import PathArgument

if TYPE_CHECKING:
    from scheduler.output.documents import Document
    from worker.services.promotion import Judgement

CHAMPION = "champion"
PRIMARY = ("metric", "candidate", "champion", "improvement", "low", "high", "needed")
GUARDS = ("metric", "dataset", "rule", "limit", "candidate", "champion", "kept")
COMPARED = ("metric", "a", "b", "change", "low", "high", "better", "wanted", "real", "n")
ALIASES = ("model", "alias", "version")
HISTORY = ("at", "alias", "outcome", "version", "previous", "who", "why", "verdict")

_alias = click.option(
    "--alias", default=CHAMPION, show_default=True, metavar="NAME", help="The alias to move."
)
_why = click.option("--why", metavar="TEXT", help="A reason for the history.")


@click.command("alias")
@click.argument("reference", metavar="[MODEL]", required=False)
@click.option("--as", "alias", metavar="NAME", help="The alias to give, such as champion.")
@click.option("--remove", is_flag=True, help="Remove the alias: that of --as, or of NAME@ALIAS.")
@_why
@shown
def alias(
    reference: str | None, alias: str | None, remove: bool, why: str | None, as_json: bool
) -> None:
    """Give an alias to a version, without asking the gate. A bare name means its champion.

    Without --as and --remove, list the aliases of MODEL, or of all models.

    \b
    genmill model alias digits:2 --as champion
    genmill model alias digits@tested --remove
    genmill model alias digits
    """
    from db.readable import refuse_unreadable
    from scheduler.models import aliases
    from scheduler.output.render import print_json, print_table
    from scheduler.removal.schedules import refuse_alias

    with open_record() as services:
        if alias is None and not remove:
            with services.database.read() as session:
                found, bad = aliases.listing(session, reference)
            print_json(found) if as_json else print_table(found, ALIASES)
            refuse_unreadable("model", bad)
            return
        if reference is None:
            raise click.UsageError("give the MODEL that has the alias, or is to have it")
        if remove:
            with services.database.read() as session:
                refuse_alias(session, aliases.removed_alias(reference, alias))
            entry = aliases.remove_alias(services, reference, alias, why=why)
        else:
            entry = aliases.set_alias(services, reference, str(alias), why=why)
    _print_entry(entry, as_json=as_json)


@click.command("rollback")
@click.argument("name", metavar="MODEL")
@_alias
@_why
@as_json
def rollback(name: str, alias: str, why: str | None, as_json: bool) -> None:
    """Give an alias back to the version that had it before. Run again, it goes back another step.

    \b
    genmill model rollback digits --why "blurred sevens"
    """
    from scheduler.models.aliases import roll_back

    with open_record() as services:
        _print_entry(roll_back(services, name, alias, why=why), as_json=as_json)


@click.command("promote")
@click.argument("model", metavar="MODEL")
@_alias
@click.option(
    "--policy",
    type=PathArgument(path_type=Path),
    metavar="FILE",
    help="Policy file; by default the medium's own, as `genmill policy show` prints it.",
)
@click.option(
    "--dataset", metavar="D", help="Use the evaluation on this dataset. Default: the newest one."
)
@click.option("--force", is_flag=True, help="Promote whatever the gate decides; it is recorded.")
@_why
@as_json
def promote(policy: Path | None, as_json: bool, **options: Any) -> None:
    """Make a version the champion, if the gate finds it better than the one that is.

    The gate compares evaluations of one protocol by a policy, on the same resampled items. If it
    refuses, the exit code is 1. Without a champion the version is promoted.

    \b
    genmill model promote digits:3 --why "trained on the new scans"
    genmill model promote digits:3 --policy strict.toml --dataset mnist
    """
    from scheduler.models import aliases
    from scheduler.output.render import print_json
    from worker.gate.policy import read_policy
    from worker.specs import parse_spec

    given = {name: value for name, value in options.items() if value is not None}
    given |= {"policy": read_policy(policy)} if policy else {}
    with open_record() as services:
        judged = aliases.promote(services, parse_spec({"kind": "promote", **given}))
    if as_json:
        print_json(judged.data)
    else:
        _print_numbers(judged)
    if not judged.accepted:
        raise NotPromoted(judged.text)
    click.echo(judged.text, err=True)


@click.command("compare")
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.option(
    "--dataset", metavar="D", help="Use evaluations on this dataset. Default: the newest."
)
@click.option(
    "-o",
    "--output",
    type=PathArgument(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write comparison.json and sheet.png, the pictures side by side, into a folder.",
)
@shown
def compare(
    first: str, second: str, dataset: str | None, output: Path | None, as_json: bool
) -> None:
    """Compare two versions by evaluations of one protocol.

    CHANGE is B's number less A's, with its 95% interval where the items can be resampled; BETTER is
    the version that the interval proves better. It decides nothing: see `genmill model promote`.

    \b
    genmill model compare digits:1 digits:2 -o ./compared
    """
    import json

    from scheduler.models.compare import compare as compare_versions
    from scheduler.models.compare import write_sheet
    from scheduler.output.render import print_json, print_table
    from worker.files import disk_errors

    with open_record() as services:
        found = compare_versions(services, first, second, dataset)
        data = found.data
        if output is not None:
            with disk_errors(output), shared_as_usual():
                output.mkdir(parents=True, exist_ok=True)
                text = json.dumps(data, indent=2, ensure_ascii=False) + "\n"
                (output / "comparison.json").write_text(text, "utf-8")
                drawn = write_sheet(services, found, output / "sheet.png")
            if not drawn:
                click.echo("no sheet: the pictures of an evaluation were removed", err=True)
    if as_json:
        print_json(data)
        return
    click.echo(f"A is {data['first']}, B is {data['second']}", err=True)
    rows = [each | {"a": each["first"], "b": each["second"]} for each in data["numbers"]]
    print_table(rows, COMPARED)


@click.command("history")
@click.argument("name", metavar="MODEL")
@click.option("--alias", metavar="NAME", help="Only the history of this alias.")
@shown
def history(name: str, alias: str | None, as_json: bool) -> None:
    """Show who moved which alias, when and why, and what the gate refused.

    \b
    genmill model history digits
    """
    from db.readable import refuse_unreadable
    from scheduler.models.aliases import history_of
    from scheduler.output.render import print_json, print_table

    with open_record() as services, services.database.read() as session:
        entries, bad = history_of(session, name, alias)
    told = [
        each | {"verdict": "; ".join((each["verdict"] or {}).get("reasons", []))}
        for each in entries
    ]
    print_json(entries) if as_json else print_table(told, HISTORY, prose=True)
    refuse_unreadable("entry", bad)


def _print_entry(entry: "Document", *, as_json: bool) -> None:
    from scheduler.output.render import print_json

    if as_json:
        print_json(entry)
        return
    number = entry["version"]
    name = f"{entry['model']}@{entry['alias']}"
    click.echo(f"{name} was removed" if number is None else f"{name} is {entry['model']}:{number}")


def _print_numbers(judged: "Judgement") -> None:
    from scheduler.output.render import print_table

    primary, guards = judged.data["primary"], judged.data["guards"]
    if primary:
        print_table([primary], PRIMARY)
    if guards:
        print_table(guards, GUARDS, heading="GUARDS")
