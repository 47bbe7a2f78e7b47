"""The state that a worker's two processes share, in memory mapped before the fork.

Celery's parent receives signals and messages; its child does the work. Unlike a
`multiprocessing.Event`, this has no lock: a child killed while holding one would never release it,
and the parent would hang in its signal handler. Single bytes and aligned doubles need none.
"""

import mmap
import os
import struct
import time

_DRAINING, _BOOT_FAILED, _REFUSED = 0, 1, 2  # one byte each
_PULSE, _PULSE_AT = struct.Struct("@d"), 8
_PID, _PID_AT = struct.Struct("@q"), 16
_REASON = slice(64, 64 + 2048)  # padded with zeros


class SharedState:
    """What one worker's parent and child tell each other."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, mmap.PAGESIZE)

    def drain(self) -> None:
        """Tell the child to save its work, give the shard back and take no other."""
        self._memory[_DRAINING] = 1

    @property
    def draining(self) -> bool:
        """Whether the worker is shutting down."""
        return self._memory[_DRAINING] == 1

    def fail_boot(self, reason: str, *, refused: bool) -> None:
        """Tell the parent why the child could not boot; `refused`: no other child could either."""
        size = _REASON.stop - _REASON.start
        self._memory[_REASON] = reason.encode(errors="replace")[:size].ljust(size, b"\0")
        self._memory[_REFUSED] = refused
        self._memory[_BOOT_FAILED] = 1

    @property
    def boot_failed(self) -> bool:
        """Whether the child could not boot."""
        return self._memory[_BOOT_FAILED] == 1

    @property
    def boot_error(self) -> str:
        """Why the child could not boot."""
        return self._memory[_REASON].rstrip(b"\0").decode(errors="ignore")

    @property
    def refused(self) -> bool:
        """Whether it could not boot because of its settings."""
        return self._memory[_REFUSED] == 1

    def pulse(self) -> None:
        """Note that this process, the child, is alive."""
        _PULSE.pack_into(self._memory, _PULSE_AT, time.monotonic())
        _PID.pack_into(self._memory, _PID_AT, os.getpid())

    def forget_child(self) -> None:
        """Expect no pulse until the next child gives its first."""
        _PID.pack_into(self._memory, _PID_AT, 0)

    @property
    def silent_s(self) -> float:
        """Seconds since the last pulse; all processes share the monotonic clock."""
        return time.monotonic() - float(_PULSE.unpack_from(self._memory, _PULSE_AT)[0])

    @property
    def child_pid(self) -> int:
        """The process that gave the last pulse; 0 before the first."""
        return int(_PID.unpack_from(self._memory, _PID_AT)[0])
