"""`genmill cache`: this machine's copies of datasets and weights."""

import click

from scheduler.cli.options import as_json


@click.group("cache")
def cache() -> None:
    """The copies of datasets and weights that workers keep on this machine's disk."""


@cache.command("clear")
@click.option("--dry-run", is_flag=True, help="Only show how much would be freed.")
@as_json
def clear(dry_run: bool, as_json: bool) -> None:
    """Delete this machine's copies of datasets and weights, but for those in use; print the bytes.

    Nothing is lost: what is needed again is fetched from the store. A worker keeps what it uses.

    \b
    genmill cache clear
    """
    from scheduler.output.render import print_json, to_count, to_size
    from worker.cache import Cache, Cleared
    from worker.settings import read_settings

    settings = read_settings()
    found = Cache(settings.cache, limit_bytes=settings.cache_bytes)
    if dry_run:
        sizes = found.sizes()
        files = {inode: size for each in sizes.values() for inode, size in each.items()}
        cleared = Cleared(len(sizes), sum(files.values()), 0)
    else:
        cleared = found.clear()
    if as_json:
        print_json(cleared._asdict() | {"dry_run": dry_run, "folder": str(settings.cache)})
        return
    verb = "would be deleted" if dry_run else "deleted"
    click.echo(f"{to_size(cleared.size_bytes)} in {to_count(cleared.folders, 'folder')} {verb}")
    if cleared.held:
        click.echo(f"{to_count(cleared.held, 'folder')} in use stayed", err=True)
