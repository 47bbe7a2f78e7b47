"""The state that a worker's two processes share, in memory that is mapped before the fork.

Celery's parent takes the signals and the messages; its child does the work. There is no lock, as in
a `multiprocessing.Event`: a child killed while holding one would never release it, and the parent
would hang in its signal handler. Single bytes and aligned doubles need none.
"""

import mmap
import os
import struct
import time

_DRAINING, _BOOT_FAILED, _REFUSED = 0, 1, 2  # one byte each
_PULSE, _PULSE_AT = struct.Struct("@d"), 8
_PID, _PID_AT = struct.Struct("@q"), 16


class SharedState:
    """What one worker's parent and child tell each other."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, mmap.PAGESIZE)

    def drain(self) -> None:
        """Tell the child to save what it is making, give it back and take nothing new."""
        self._memory[_DRAINING] = 1

    @property
    def draining(self) -> bool:
        """Whether the worker is shutting down."""
        return self._memory[_DRAINING] == 1

    def fail_boot(self, *, refused: bool) -> None:
        """Tell the parent that the child could not boot; `refused`: nor could any other here."""
        self._memory[_REFUSED] = refused
        self._memory[_BOOT_FAILED] = 1

    @property
    def boot_failed(self) -> bool:
        """Whether the child could not boot."""
        return self._memory[_BOOT_FAILED] == 1

    @property
    def refused(self) -> bool:
        """Whether the settings are why it could not boot."""
        return self._memory[_REFUSED] == 1

    def pulse(self) -> None:
        """Say that this process, the child, is alive."""
        _PULSE.pack_into(self._memory, _PULSE_AT, time.monotonic())
        _PID.pack_into(self._memory, _PID_AT, os.getpid())

    def forget_child(self) -> None:
        """Expect no pulse until the next child's first."""
        _PID.pack_into(self._memory, _PID_AT, 0)

    @property
    def silent_s(self) -> float:
        """Seconds since the last pulse; all processes share the monotonic clock."""
        return time.monotonic() - float(_PULSE.unpack_from(self._memory, _PULSE_AT)[0])

    @property
    def child_pid(self) -> int:
        """The process that gave the last pulse; 0 before any."""
        return int(_PID.unpack_from(self._memory, _PID_AT)[0])
