"""Every error that Genmill raises on purpose, and what each means to the caller.

    GenmillError                 exit code 1: what was asked for failed
    |-- Refused                  exit code 2: wrong usage, a spec or an input that is not accepted
    |   |-- BadInput             a file or value in a dataset, weights or prompts is unusable
    |   |-- TooLarge             the work takes more memory than this machine has
    |   `-- NotSupportedHere     this machine, or the Genmill on it, cannot do it
    |-- Unreachable              exit code 3: a database, broker or object store cannot be used now
    |-- NotFound                 exit code 4: no such thing
    |   `-- Gone                 it was there, and a command removed it
    |-- ShortOfMemory            memory is short now
    |-- MissingPackage           this machine's Genmill lacks a package that an extra brings
    |-- Removed                  it was there, and retention deleted it
    |-- JobFailed                an awaited job failed or was cancelled
    |-- TimedOut                 an awaited job had not ended when the wait was over
    |-- BadRecord                the record holds what Genmill has not written
    |-- DigestMismatch           bytes differ from the SHA-256 on record
    |-- WrongKey                 this process has not the installation key that opens a secret
    |   `-- DamagedSecret        no key opens it
    |-- NonFinite                a loss, weight or sample is NaN or infinite
    |-- MarkFailed               a sample's marks do not read back
    |-- NotPromoted              the gate refused a version
    |-- NotVerified              a file is not ours, or not as it was made
    |-- Collapsed                training diverged, and going back to good weights did not help
    |-- SchemaMismatch           the database's schema is not the one this version knows
    |-- Panic                    native code failed in a way that it does not expect to survive
    `-- Stopped                  the work was stopped; nothing is wrong with it
        |-- Cancelled            its job was cancelled
        |-- NothingToKeep        its training was told to end before its first step
        |-- LeaseLost            another worker may have claimed the shard: commit nothing
        `-- Draining             this worker is shutting down: save, release the shard and go

A worker decides by the `Cause` of an error what becomes of a shard. Each class states its own, so
that no error is taken for another kind because of what it derives from; `cause_of` tells it of any
error, also of the system's and, where a room registers them, of libraries'.

    cause      lasting                                  otherwise
    WORK       failed at once                           counted, and tried again up to the limit
    SERVICE                        given back after a pause, never counted
    MACHINE    given back, until every live machine     given back after a growing pause, as often
               has declined it                          as `db.attempts.MAX_DECLINES` allows
    UNKNOWN                        counted, with its traceback, and tried again up to the limit

`lasting` says that the same will happen tomorrow: to this work or, of MACHINE, on this machine.
"""

from collections.abc import Iterable
from typing import ClassVar, Self

from db.causes import Cause, cause_of, is_outage


class GenmillError(Exception):
    """Genmill could not do what was asked.

    `message` says what is wrong, with the value and the limit; `remedy` says what to do about it.
    `str` joins the two.
    """

    exit_code = 1
    cause: ClassVar[Cause] = Cause.UNKNOWN
    lasting: ClassVar[bool] = False

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
    cause = Cause.WORK
    lasting = True


class BadInput(Refused):
    """A file or value is not usable."""

    cause = Cause.WORK
    lasting = True


class TooLarge(Refused):
    """The work takes more memory than this machine has."""

    cause = Cause.MACHINE
    lasting = True


class NotSupportedHere(Refused):
    """This machine, or the version of Genmill on it, cannot do the work."""

    cause = Cause.MACHINE
    lasting = True


class ShortOfMemory(GenmillError):
    """Memory is short on this machine now."""

    cause = Cause.MACHINE


class Unreachable(GenmillError):
    """A service cannot be reached."""

    exit_code = 3
    cause = Cause.SERVICE


class NotFound(GenmillError):
    """No such thing."""

    exit_code = 4
    cause = Cause.WORK
    lasting = True


class Gone(NotFound):
    """It was removed by a command."""

    cause = Cause.WORK
    lasting = True


class MissingPackage(GenmillError):
    """A package that this needs is not installed here."""

    cause = Cause.MACHINE
    lasting = True


class Removed(GenmillError):
    """It was removed, because it was older than what is kept."""

    cause = Cause.WORK
    lasting = True


class JobFailed(GenmillError):
    """The job did not succeed."""

    cause = Cause.WORK
    lasting = True


class TimedOut(GenmillError):
    """The wait was over before the job ended."""

    cause = Cause.WORK
    lasting = True


class BadRecord(GenmillError):
    """The record holds what Genmill has not written."""

    cause = Cause.WORK
    lasting = True


class DigestMismatch(GenmillError):
    """The bytes differ from the digest on record."""

    cause = Cause.WORK
    lasting = True


class WrongKey(GenmillError):
    """The installation key is not here, or is not the one that wrapped this."""

    cause = Cause.SERVICE  # it may be brought, or the process started anew with the right one


class DamagedSecret(WrongKey):
    """It was changed since it was wrapped: no installation key opens it."""

    cause = Cause.MACHINE
    lasting = True


class NonFinite(GenmillError):
    """A number is NaN or infinite."""

    cause = Cause.WORK
    lasting = True


class MarkFailed(GenmillError):
    """The marks of a sample do not read back."""

    cause = Cause.WORK


class NotPromoted(GenmillError):
    """The gate refused the version."""

    cause = Cause.WORK
    lasting = True


class NotVerified(GenmillError):
    """A file is not ours, or not as it was made."""

    cause = Cause.WORK
    lasting = True


class Collapsed(GenmillError):
    """Training diverged, and going back to good weights did not help."""

    cause = Cause.WORK
    lasting = True


class SchemaMismatch(GenmillError):
    """The database's schema is not the one this version of Genmill knows."""

    cause = Cause.MACHINE
    lasting = True


class Panic(GenmillError):
    """Native code failed in a way that it does not expect to survive."""

    cause = Cause.UNKNOWN


class Stopped(GenmillError):
    """The work was stopped."""

    cause = Cause.SERVICE


class Cancelled(Stopped):
    """The job was cancelled."""

    cause = Cause.SERVICE


class NothingToKeep(Stopped):
    """The training was told to end before its first step."""

    cause = Cause.SERVICE


class LeaseLost(Stopped):
    """The shard's lease was lost to another worker."""

    cause = Cause.SERVICE


class Draining(Stopped):
    """The worker is shutting down."""

    cause = Cause.SERVICE


@cause_of.register
def _(error: GenmillError) -> Cause:
    return error.cause


def raise_outage(error: BaseException) -> None:
    """Re-raise an error that says nothing of the content that was being read."""
    if isinstance(error, MemoryError):
        raise ShortOfMemory("memory ran out", remedy="free some, or give less at once") from error
    if is_outage(error):
        raise error


def contained(error: BaseException) -> Exception:
    """The error itself, or a `Panic` in place of one that `except Exception` would miss.

    Raises orders to end the process, or a generator, again.
    """
    if isinstance(error, Exception):
        return error
    if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit):
        raise error
    text = " ".join(str(error).split())[:300]
    panic = Panic(f"native code panicked ({type(error).__name__}): {text}")
    panic.__cause__ = error
    return panic
