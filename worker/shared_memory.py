"""What a worker's two processes tell each other: shared memory, made before the fork.

Celery's parent takes the signals and the messages; its child makes things. A lock, as in a
`multiprocessing.Event`, would be held for ever by a child that was killed while it held it, and the
parent would hang in its signal handler; single bytes and aligned doubles need none.
"""

import mmap
import os
import struct
import time

_DRAIN, _BROKEN = 0, 1  # one byte each
_PULSE, _PULSE_AT = struct.Struct("@d"), 8
_PID, _PID_AT = struct.Struct("@q"), 16


class Wire:
    """One worker's shared memory."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, mmap.PAGESIZE)

    def drain(self) -> None:
        """Tell the child to save what it is making, give it back and take nothing new."""
        self._memory[_DRAIN] = 1

    @property
    def draining(self) -> bool:
        """Whether the worker is shutting down."""
        return self._memory[_DRAIN] == 1

    def give_up(self) -> None:
        """Tell the parent that the child cannot work at all, so that no other shall be started."""
        self._memory[_BROKEN] = 1

    @property
    def broken(self) -> bool:
        """Whether the child has given up."""
        return self._memory[_BROKEN] == 1

    def pulse(self) -> None:
        """Say that this process, the child, lives."""
        _PULSE.pack_into(self._memory, _PULSE_AT, time.monotonic())
        _PID.pack_into(self._memory, _PID_AT, os.getpid())

    def forget(self) -> None:
        """Expect nothing until the next child's first pulse."""
        _PID.pack_into(self._memory, _PID_AT, 0)

    @property
    def silent_s(self) -> float:
        """Seconds since the last pulse; the monotonic clock is one for all processes."""
        return time.monotonic() - float(_PULSE.unpack_from(self._memory, _PULSE_AT)[0])

    @property
    def pid(self) -> int:
        """The process that gave the last pulse; 0 before any."""
        return int(_PID.unpack_from(self._memory, _PID_AT)[0])
