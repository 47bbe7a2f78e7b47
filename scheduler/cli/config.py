"""`genmill config`: the settings, where each comes from, and what is wrong with them."""

import click

from scheduler.cli.options import as_json, listed

COLUMNS = ("setting", "value", "source", "meaning")
CHECKED = ("setting", "ok", "found", "remedy")


@click.group("config")
def config() -> None:
    """Settings: GENMILL_ variables of the environment, or of a .env in the working folder."""


@config.command("list")
@listed
def list_settings(as_json: bool, quiet: bool) -> None:
    """List every setting: its value in use, where that comes from, and what it does.

    Passwords are masked.

    \b
    genmill config list
    genmill config list --json setting,value
    """
    from scheduler.machine.configuration import settings_in_use
    from scheduler.output.render import print_list

    found = settings_in_use()
    print_list(found, COLUMNS, as_json=as_json, quiet=quiet, key="setting", prose=True)


@config.command("check")
@as_json
def check(as_json: bool) -> None:
    """Check the settings that are given: their values, and names that are not known.

    Exits with 1 if any is wrong. Whether the services answer is checked by `genmill doctor`.

    \b
    genmill config check && genmill up --detach
    """
    from db.errors import GenmillError
    from scheduler.machine.configuration import check_settings
    from scheduler.output.render import print_json, print_table

    checks = check_settings()
    if as_json:
        print_json(checks)
    elif checks:
        print_table(checks, CHECKED, prose=True)
    else:
        click.echo("no setting is given: all have their defaults", err=True)
    if wrong := [each["setting"] for each in checks if not each["ok"]]:
        raise GenmillError(f"{len(wrong)} of {len(checks)} settings are wrong: {', '.join(wrong)}")
