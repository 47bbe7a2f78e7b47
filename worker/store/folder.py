"""An object store in a folder, on this machine or on a shared file system."""

import errno
import hashlib
import io
import math
import os
import secrets
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

from db.errors import Unreachable
from db.path_errors import path_error
from worker.files import CHUNK, disk_errors, durable_rename
from worker.store.base import (
    OWN,
    Blob,
    checked_expiry,
    checked_key,
    digest_in_key,
    require_equal,
)
from worker.store.byte_store import ByteStore
from worker.store.new_files import flush_file_system, write_new

PUBLIC_FILE, PUBLIC_FOLDER = 0o644, 0o755
_NO_OBJECT = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR}


class FolderStore(ByteStore):
    """Objects as files under `root`. Temporary files lie in `root/.tmp`, which no key can name.

    What was written counts once the sentinel has been seen after it: a folder that is unmounted
    leaves its mount point behind, which takes files too.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._temporaries = f"{root}/.tmp"
        self._unflushed = False
        self._flushing = threading.Lock()
        self._public = set[Path]()  # folders that were opened to readers

    def __str__(self) -> str:
        return str(self.root)

    def put(self, prefix: str, path: Path) -> Blob:
        """See `ObjectStore.put`; the file is copied and digested in one pass."""
        with path.open("rb") as source:
            return self._store(prefix, source)

    def keep(self, blob: Blob, source: BinaryIO | bytes, *, durable: bool = True) -> None:
        """See `ByteStore.keep`."""
        checked_key(blob.key)
        if not self._has(blob):
            if isinstance(source, bytes):
                self._write(blob.key, source, durable=durable)
            else:
                self._copy(blob.key, source)
        self._note(blob.key, durable=durable)

    def replace(self, key: str, data: bytes) -> None:
        """See `ByteStore.replace`."""
        self._write(checked_key(key), data, durable=True)
        self._note(key, durable=True)

    def put_as(self, key: str, data: bytes, *, durable: bool = True) -> Blob:
        """See `ObjectStore.put_as`."""
        target = self._path(key)
        if target.exists():
            require_equal(key, target.read_bytes(), data)
        else:
            self._write(key, data, durable=durable)
        self._note(key, durable=durable)
        return Blob(key, hashlib.sha256(data).hexdigest(), len(data))

    def replace_public(self, key: str, data: bytes, *, media_type: str) -> None:
        """Store a file that anyone may read, in place of what lies there; `flush` makes it durable.

        A reader sees the old bytes or the new ones. The `media_type` is for buckets.
        """
        path = self._path(key)
        with disk_errors(self.root):
            # whatever the umask, which keeps all other files private
            self._write(key, data, durable=False, mode=PUBLIC_FILE)
            self._note(key, durable=False)
            self._publish_folder(path.parent)

    def flush(self) -> None:
        """See `ObjectStore.flush`; one call for the whole file system of the folder."""
        # the lock makes a second caller wait for a flush that covers what it stored
        with self._flushing, disk_errors(self.root):
            if self._unflushed:
                self._unflushed = False
                try:
                    flush_file_system(self.root)
                except OSError:
                    self._unflushed = True
                    raise
                self.verify()

    @contextmanager
    def open(self, key: str, *, start: int = 0, stop: int | None = None) -> Iterator[BinaryIO]:
        """See `ObjectStore.open`."""
        with self._open(key) as file:
            file.seek(start)
            yield (
                file
                if stop is None
                else cast(BinaryIO, io.BufferedReader(_Window(file, max(0, stop - start))))
            )

    def stat(self, key: str) -> Blob:
        """See `ObjectStore.stat`."""
        with self._open(key) as file:
            return Blob(key, digest_in_key(key), os.fstat(file.fileno()).st_size)

    def has(self, key: str) -> bool:
        """See `ObjectStore.has`."""
        with disk_errors(self.root):
            return self._path(key).is_file()

    def delete(self, key: str) -> None:
        """See `ObjectStore.delete`."""
        with disk_errors(self.root):
            self._path(key).unlink(missing_ok=True)

    def keys(self, prefix: str, *, older_than_s: float | None = None) -> Iterator[str]:
        """See `ObjectStore.keys`."""
        self.verify()
        limit = None if older_than_s is None else self._now() - older_than_s
        with disk_errors(self.root):
            for folder, folders, files in os.walk(self._path(prefix), onerror=_raise_unless_gone):
                folders.sort()
                for path in (Path(folder, name) for name in sorted(files)):
                    if limit is None or _is_older(path, limit):
                        yield path.relative_to(self.root).as_posix()

    def sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        """See `ObjectStore.sizes`."""
        for key in self.keys(prefix):
            with suppress(FileNotFoundError):
                yield key, os.stat(self._target(key)).st_size  # noqa: PTH116 - as in _target

    def versions(self, prefix: str) -> Iterator[tuple[str, str]]:
        """Every key below the folder `prefix`, and what tells its file from one written later."""
        for key in self.keys(prefix):
            with suppress(FileNotFoundError):  # deleted meanwhile
                found = os.stat(self._target(key))  # noqa: PTH116 - as in _target
                yield key, f"{found.st_mtime_ns}-{found.st_ino}-{found.st_size}"

    def url(self, key: str, expires_s: int) -> str:
        """The file's own URL, which does not expire."""
        checked_expiry(expires_s)
        self._open(key).close()
        return self._path(key).absolute().as_uri()

    def check(self) -> None:
        """See `ObjectStore.check`."""
        try:
            with self._temporary() as temporary:
                temporary.write_bytes(b"genmill")
        except OSError as error:
            raise Unreachable(
                f"object store {self.root}: {error.strerror}",
                remedy="set GENMILL_STORE_URL, or GENMILL_HOME, to a folder that you can write",
            ) from error

    def abort_uploads(self, prefix: str, older_than_s: float) -> int:
        """See `ObjectStore.abort_uploads`; removes old temporary files, which have no prefix."""
        checked_key(prefix)
        limit = self._now() - older_than_s
        old = [path for path in (self.root / ".tmp").iterdir() if _is_older(path, limit)]
        for path in old:
            path.unlink(missing_ok=True)
        return len(old)

    def _store(self, prefix: str, source: BinaryIO) -> Blob:
        checked_key(prefix)
        self.verify()
        with self._temporary() as temporary:
            digest, size = hashlib.sha256(), 0
            with temporary.open("wb") as file:
                while chunk := source.read(CHUNK):
                    digest.update(chunk)
                    size += file.write(chunk)
            sha256 = digest.hexdigest()
            blob = Blob(f"{prefix}/{sha256}", sha256, size)
            if not self._has(blob):
                self._place(temporary, blob.key)
        self._note(blob.key, durable=True)
        return blob

    def _copy(self, key: str, source: BinaryIO) -> None:
        self.verify()
        with self._temporary() as temporary:
            with temporary.open("wb") as file:
                shutil.copyfileobj(source, file, CHUNK)
            self._place(temporary, key)

    def _place(self, temporary: Path, key: str) -> None:
        target = self._path(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        durable_rename(temporary, target)

    def _write(self, key: str, data: bytes, *, durable: bool, mode: int | None = None) -> None:
        if key not in OWN:
            self.verify(within_s=math.inf)
        with disk_errors(self.root):
            try:
                write_new(data, self._target(key), self._temporaries, durable=durable, mode=mode)
            except FileNotFoundError:
                if key not in OWN:
                    self.verify()  # before anything is made in an empty mount point
                Path(self._temporaries).mkdir(parents=True, exist_ok=True)
                write_new(data, self._target(key), self._temporaries, durable=durable, mode=mode)

    def _note(self, key: str, *, durable: bool) -> None:
        if not durable:  # also of an object that was there: its writer may have died before a flush
            self._unflushed = True
        elif key not in OWN:
            self.verify()

    def _has(self, blob: Blob) -> bool:
        """Whether the object is there; its age starts at zero again then."""
        target = self._target(blob.key)
        with suppress(FileNotFoundError):
            if os.stat(target).st_size == blob.size:  # noqa: PTH116 - a file of another size is damaged
                os.utime(target)
                return True
        return False

    @contextmanager
    def _temporary(self) -> Iterator[Path]:
        with disk_errors(self.root):
            (self.root / ".tmp").mkdir(parents=True, exist_ok=True)
            temporary = self.root / ".tmp" / f"{os.getpid()}-{secrets.token_hex(8)}"
            temporary.touch(0o660, exist_ok=False)  # less the umask
            try:
                yield temporary
            finally:
                temporary.unlink(missing_ok=True)

    def _publish_folder(self, folder: Path) -> None:
        while folder != self.root and folder not in self._public:
            folder.chmod(PUBLIC_FOLDER)
            self._public.add(folder)
            folder = folder.parent

    def _target(self, key: str) -> str:
        return f"{self.root}/{key}"  # a Path would take as long as writing a small file

    def _path(self, key: str) -> Path:
        return self.root / checked_key(key)

    def _open(self, key: str) -> BinaryIO:
        try:
            return self._open_file(self._path(key))
        except OSError as error:
            is_there = os.path.isdir(self.root)  # noqa: PTH112 - Path.is_dir may raise, too
            # a folder that is not there yet has no sentinel
            if error.errno in _NO_OBJECT and (key in OWN or is_there):
                raise self.missing(key) from None
            at_fault = self._path(key) if is_there else self.root
            raise path_error(error, at_fault, verb="read", kind=Unreachable) from error

    def _open_file(self, path: Path) -> BinaryIO:
        return path.open("rb")

    def _now(self) -> float:
        """The file system's clock, which may be another machine's."""
        with self._temporary() as new:
            return new.stat().st_mtime


class _Window(io.RawIOBase):
    """The next `left` bytes of a file. Closing it leaves the file open."""

    def __init__(self, file: BinaryIO, left: int) -> None:
        self._file = file
        self._left = left

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override] # a Buffer, in effect
        data = self._file.read(min(len(buffer), self._left))
        buffer[: len(data)] = data
        self._left -= len(data)
        return len(data)


def _raise_unless_gone(error: OSError) -> None:
    """What cannot be listed is not taken for empty."""
    if error.errno not in _NO_OBJECT:
        raise error


def _is_older(path: Path, limit: float) -> bool:
    """Whether a file was last written before `limit`; False if it is gone."""
    try:
        return path.stat().st_mtime < limit
    except FileNotFoundError:
        return False
