"""`genmill model marks`: the profile of marks that a model's samples get by default."""

import click

from scheduler.cli.options import shown
from scheduler.cli.record import open_record
from scheduler.submission.path_arguments import PathArgument


@click.command("marks")
@click.argument("name", metavar="MODEL")
@click.argument("profile", required=False, type=PathArgument(dir_okay=False), metavar="[PROFILE]")
@click.option("--remove", is_flag=True, help="Go back to the installation's: GENMILL_MARKS.")
@shown
def marks(name: str, profile: str | None, remove: bool, as_json: bool) -> None:
    """Show or set the marks that a model's samples get where a job asks for none.

    PROFILE is none, eu-art50, cn-gb45438, or your own in a FILE.toml, which is read now.

    \b
    genmill model marks digits eu-art50
    genmill model marks digits --remove
    """
    from scheduler.models.default_marks import default_marks, set_default_marks
    from scheduler.output.render import print_fields, print_json

    if profile is not None and remove:
        raise click.UsageError("give a PROFILE or --remove, not both")
    with open_record() as services:
        if profile is not None or remove:
            set_default_marks(services, name, profile)
        document = default_marks(services, name)
    print_json(document) if as_json else print_fields(document)
