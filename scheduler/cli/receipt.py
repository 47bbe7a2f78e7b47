"""The id of what a command stored, which is printed whatever happens afterwards."""

from contextlib import suppress
from types import TracebackType
from typing import Self

import click


class Receipt:
    """Prints the id of what was stored, at once: alone, unless the block prints a document of it.

    If the block fails before the id is out, as when the standard output is closed or its disk is
    full, the id goes to stderr: the command did not refuse the job.
    """

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._unsaid: str | None = None

    def stored(self, reference: str) -> None:
        """Call this right after the commit."""
        self._unsaid = reference
        if not self._as_json:
            click.echo(reference)
            self._unsaid = None

    def said(self) -> None:
        """Call this once the document has been printed."""
        self._unsaid = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None and self._unsaid is not None:
            with suppress(OSError):
                click.echo(f"stored as {self._unsaid}", err=True)
