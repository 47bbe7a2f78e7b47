"""Every error that Genmill raises on purpose, and what each means to the caller.

    GenmillError                 exit code 1: what was asked for failed
    |-- Refused                  exit code 2: wrong usage, a spec or an input that is not accepted
    |   |-- BadInput             a file or value in a dataset, weights or prompts is unusable
    |   `-- TooLarge             the work does not fit into free memory
    |-- Unreachable              exit code 3: a database, broker or object store cannot be used now
    |-- NotFound                 exit code 4: no such thing
    |-- Removed                  it was there, and retention deleted it
    |-- JobFailed                an awaited job failed or was cancelled
    |-- BadRecord                the record holds what Genmill has not written
    |-- DigestMismatch           bytes differ from the SHA-256 on record
    |-- NonFinite                a loss, weight or sample is NaN or infinite
    |-- NotPromoted              the gate refused a version
    |-- Collapsed                training diverged, and going back to good weights did not help
    |-- SchemaMismatch           the database's schema is not the one this version knows
    `-- Stopped                  the work was stopped; nothing is wrong with it
        |-- Cancelled            its job was cancelled
        |-- LeaseLost            another worker may have claimed the shard: commit nothing
        `-- Draining             this worker is shutting down: save, release the shard and go

The type decides what a worker does with a shard. `Unreachable` and `Draining`: release it without
counting a failure. `Refused`, `NotFound`, `NonFinite`, `NotPromoted`, `Collapsed` and
`DigestMismatch`: fail it at once. Anything else: count a failure, and retry up to the limit.
"""

from collections.abc import Iterable
from typing import Self


class GenmillError(Exception):
    """Genmill could not do what was asked.

    `message` says what is wrong, with the value and the limit; `remedy` says what to do about it.
    `str` joins the two.
    """

    exit_code = 1

    def __init__(self, message: str | None = None, *, remedy: str | None = None) -> None:
        self.message = message or (type(self).__doc__ or "").partition("\n")[0].strip()
        self.remedy = remedy
        super().__init__(self.message)

    @classmethod
    def unknown(cls, noun: str, name: str, known: Iterable[str], *, of: str = "") -> Self:
        """No `noun` is called `name`; the error suggests the nearest of the `known` names.

        `of` is what was searched: `unknown("version", "9", ["1"], of="model 'digits'")` reads
        "model 'digits' has no version '9'; known: 1".
        """
        import difflib  # noqa: PLC0415 - every command imports this module, and few fail

        names = sorted(known)
        near = difflib.get_close_matches(name, names, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
        return cls(
            f"{of} has no {noun} {name!r}{hint}" if of else f"no {noun} {name!r}{hint}",
            remedy=f"known: {shown}" if names else "there are none",
        )

    def __str__(self) -> str:
        return f"{self.message}; {self.remedy}" if self.remedy else self.message


class Refused(GenmillError):
    """The request is not acceptable as it stands."""

    exit_code = 2


class BadInput(Refused):
    """A file or value is not usable."""


class TooLarge(Refused):
    """The work does not fit into memory."""


class Unreachable(GenmillError):
    """A service cannot be reached."""

    exit_code = 3


class NotFound(GenmillError):
    """No such thing."""

    exit_code = 4


class Removed(GenmillError):
    """It was removed, because it was older than what is kept."""


class JobFailed(GenmillError):
    """The job did not succeed."""


class BadRecord(GenmillError):
    """The record holds what Genmill has not written."""


class DigestMismatch(GenmillError):
    """The bytes differ from the digest on record."""


class NonFinite(GenmillError):
    """A number is NaN or infinite."""


class NotPromoted(GenmillError):
    """The gate refused the version."""


class Collapsed(GenmillError):
    """Training diverged, and going back to good weights did not help."""


class SchemaMismatch(GenmillError):
    """The database's schema is not the one this version of Genmill knows."""


class Stopped(GenmillError):
    """The work was stopped."""


class Cancelled(Stopped):
    """The job was cancelled."""


class LeaseLost(Stopped):
    """The shard's lease was lost to another worker."""


class Draining(Stopped):
    """The worker is shutting down."""
