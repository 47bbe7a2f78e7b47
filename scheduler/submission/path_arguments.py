"""The type of every argument and option of the command line that names a file or a folder."""

import os

import click


class PathArgument(click.Path):
    """A path that can be one; that the file system allows its use shows when it is used."""

    def __init__(self, **options: bool | type | None) -> None:
        super().__init__(readable=False, **options)  # type: ignore[arg-type] # click.Path's own

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> str | bytes | os.PathLike[str]:
        """Refuse an empty path, as from an unset shell variable, and one with a NUL in it."""
        if not os.fspath(value):
            remedy = "; use . for the working folder" if self.dir_okay else ""
            self.fail(f"the path is empty{remedy}", param, ctx)
        if "\0" in os.fspath(value):
            self.fail(f"{os.fspath(value)!r} has a NUL in it, which no path has", param, ctx)
        return super().convert(value, param, ctx)
