"""Whose fault an error is: that of the work, of a service, of this machine, or nobody knows.

Genmill's errors state their cause; an error of the system has it by its number. A module that meets
a library's errors registers theirs. What follows from a cause is in `db.errors`.
"""

import errno
from enum import StrEnum
from functools import singledispatch


class Cause(StrEnum):
    """Whose fault an error is."""

    WORK = "work"  # what was asked for, or its input
    SERVICE = "service"  # a database, broker, store, disk or network cannot be used now
    MACHINE = "machine"  # this one's: its memory, device or version; another may do the work
    UNKNOWN = "unknown"


def _numbers(names: str) -> frozenset[int]:
    """The numbers of the errors with these names, as far as the system has them."""
    return frozenset(getattr(errno, name) for name in names.split() if hasattr(errno, name))


# of a disk, a file system, a limit on open files, or the way to a service
_SERVICE = _numbers(
    "ENOSPC EDQUOT EFBIG EIO EROFS EMFILE ENFILE ESTALE EUCLEAN EBADMSG ENOMEDIUM EREMOTEIO EBUSY "
    "ETXTBSY ENOLCK EDEADLK EAGAIN EINTR EPIPE ESHUTDOWN EPROTO ECOMM ENOLINK ENONET ETIMEDOUT "
    "ECONNABORTED ECONNREFUSED ECONNRESET ENOTCONN EHOSTDOWN EHOSTUNREACH ENETDOWN ENETRESET "
    "ENETUNREACH EADDRINUSE EADDRNOTAVAIL EKEYEXPIRED EKEYREVOKED EKEYREJECTED"
)
# of this machine's memory and devices, and of what its user may do
_MACHINE = _numbers("ENOMEM ENOBUFS EHWPOISON ENODEV ENXIO ENOSYS EACCES EPERM")
_NETWORK_MODULES = {"socket", "ssl", "urllib", "http", "urllib3", "requests"}


@singledispatch
def cause_of(error: BaseException) -> Cause:
    """Whose fault an error is; `cause_of.register` adds a library's, where that is known."""
    del error
    return Cause.UNKNOWN


cause_of.register(MemoryError, lambda _: Cause.MACHINE)
cause_of.register(ConnectionError, lambda _: Cause.SERVICE)
cause_of.register(TimeoutError, lambda _: Cause.SERVICE)


@cause_of.register
def _(error: OSError) -> Cause:
    # the numbers of errors of TLS and of look-ups are not the system's
    of_network = type(error).__module__.partition(".")[0] in _NETWORK_MODULES
    if of_network or error.errno in _SERVICE:
        return Cause.SERVICE
    return Cause.MACHINE if error.errno in _MACHINE else Cause.UNKNOWN


def is_outage(error: BaseException) -> bool:
    """Whether a service or this machine is at fault, and not the work or its input."""
    return cause_of(error) in {Cause.SERVICE, Cause.MACHINE}
