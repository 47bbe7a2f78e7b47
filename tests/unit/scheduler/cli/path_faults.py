"""What can be wrong with a path: each fault is put in place, and the path that has it returned."""

import ctypes
import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

Make = Callable[[Path], object]

_libc = ctypes.CDLL(None, use_errno=True)
_READ_ONLY, _REMOUNT, _DETACH = 1, 32, 2  # <sys/mount.h>


@dataclass(frozen=True)
class Place:
    """Where a path is put, how to make what belongs there, and what it is."""

    folder: Path
    name: str
    make: Make
    kind: Literal["file", "folder", "either"]

    @property
    def path(self) -> Path:
        return self.folder / self.name


def missing(place: Place) -> Path:
    return place.path


def unreadable(place: Place) -> Path:
    place.make(place.path)
    place.path.chmod(0)
    return place.path


def not_writable(place: Place) -> Path:
    place.make(place.path)
    place.path.chmod(0o500)
    return place.path


def in_a_closed_folder(place: Place) -> Path:
    place.make(place.path)
    place.folder.chmod(0)
    return place.path


def of_the_other_kind(place: Place) -> Path:
    place.path.write_text("a file") if place.kind == "folder" else place.path.mkdir()
    return place.path


def a_link_to_nothing(place: Place) -> Path:
    place.path.symlink_to(place.folder / "gone" / "away")
    return place.path


def a_link_to_itself(place: Place) -> Path:
    place.path.symlink_to(place.name)
    return place.path


def below_a_file(place: Place) -> Path:
    (place.folder / "file").write_text("a file")
    return place.folder / "file" / place.name


def too_long(place: Place) -> Path:
    return place.folder / ("x" * 256 + place.name)


def much_too_long(place: Place) -> Path:
    return place.folder / ("x/" * 2500 + place.name)


def with_a_nul(place: Place) -> Path:
    return place.folder / f"a\0b{place.name}"


def with_control_characters(place: Place) -> Path:
    """Missing, too: a name of such characters is a good one."""
    return place.folder / f"a\nb\x1b[31m{place.name}"


def on_a_full_disk(place: Place) -> Path:
    _mount(place.folder, b"size=1m")
    place.make(place.path)
    with (place.folder / "filling").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    return place.path


def on_a_read_only_disk(place: Place) -> Path:
    _mount(place.folder, b"size=4m")
    place.make(place.path)
    _mount(place.folder, None, _REMOUNT | _READ_ONLY)
    return place.path


OF_INPUTS = [
    *(missing, unreadable, in_a_closed_folder, of_the_other_kind, a_link_to_nothing),
    *(a_link_to_itself, below_a_file, too_long, much_too_long, with_a_nul),
    with_control_characters,
]
OF_TARGETS = [
    *(unreadable, not_writable, in_a_closed_folder, of_the_other_kind, a_link_to_nothing),
    *(a_link_to_itself, below_a_file, too_long, much_too_long, with_a_nul),
    *(on_a_full_disk, on_a_read_only_disk),
]


@contextmanager
def put(fault: Callable[[Place], Path], place: Place) -> Iterator[Path]:
    """The path with its fault, which is taken away at the end."""
    place.folder.mkdir()
    try:
        yield fault(place)
    finally:
        if os.path.ismount(place.folder):
            _libc.umount2(os.fsencode(place.folder), _DETACH)
        else:
            place.folder.chmod(0o700)


def snapshot(folder: Path) -> dict[str, bytes]:
    """The content of every file below a folder that can be read, except of the database."""
    found = {}
    for path in sorted(folder.rglob("*")):
        with suppress(PermissionError):
            if path.is_file() and not path.is_symlink() and ".db" not in path.name:
                found[str(path)] = path.read_bytes()
    return found


def _mount(folder: Path, data: bytes | None, flags: int = 0) -> None:
    if _libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", flags, data) != 0:
        number = ctypes.get_errno()
        assert number in (errno.EPERM, errno.EACCES, errno.ENODEV), os.strerror(number)
        pytest.skip("this user may not mount a small disk")
