"""An object store in a folder of this machine, or of a file system that several share."""

import hashlib
import io
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from db.errors import NotFound, Unreachable
from worker.files import CHUNK, disk_errors, settle
from worker.store.base import Blob, ObjectStore, checked, checked_expiry, named_digest, same


class FolderStore(ObjectStore):
    """Objects as files under `root`; temporary files in `root/.tmp`, where no key can reach."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, prefix: str, path: Path) -> Blob:
        """See `ObjectStore.put`; one pass copies and digests."""
        with path.open("rb") as source:
            return self._store(prefix, source)

    def put_bytes(self, prefix: str, data: bytes) -> Blob:
        """See `ObjectStore.put_bytes`."""
        return self._store(prefix, io.BytesIO(data))

    def put_as(self, key: str, data: bytes) -> Blob:
        """See `ObjectStore.put_as`."""
        target = self._path(key)
        sha256 = hashlib.sha256(data).hexdigest()
        if target.exists():
            same(key, target.read_bytes(), data)
        else:
            with self._temporary() as temporary:
                temporary.write_bytes(data)
                _place(temporary, target)
        return Blob(key, sha256, len(data))

    @contextmanager
    def open(self, key: str, *, start: int = 0, stop: int | None = None) -> Iterator[BinaryIO]:
        """See `ObjectStore.open`."""
        with self._existing(key).open("rb") as file:
            file.seek(start)
            yield (
                file
                if stop is None
                else cast(BinaryIO, io.BufferedReader(_Window(file, max(0, stop - start))))
            )

    def stat(self, key: str) -> Blob:
        """See `ObjectStore.stat`."""
        return Blob(key, named_digest(key), self._existing(key).stat().st_size)

    def delete(self, key: str) -> None:
        """See `ObjectStore.delete`."""
        with disk_errors(self.root):
            self._path(key).unlink(missing_ok=True)

    def keys(self, prefix: str) -> Iterator[str]:
        """See `ObjectStore.keys`; in order."""
        for folder, folders, files in os.walk(self._path(prefix)):
            folders.sort()
            for name in sorted(files):
                yield (Path(folder) / name).relative_to(self.root).as_posix()

    def url(self, key: str, expires_s: int) -> str:
        """The file's own address, which does not expire."""
        checked_expiry(expires_s)
        return self._existing(key).absolute().as_uri()

    def check(self) -> None:
        """See `ObjectStore.check`."""
        try:
            with self._temporary() as temporary:
                temporary.write_bytes(b"genmill")
        except OSError as error:
            raise Unreachable(
                f"object store {self.root}: {error.strerror}; set GENMILL_STORE_URL, or "
                "GENMILL_HOME, to a folder that you can write"
            ) from error

    def abort_uploads(self, prefix: str, older_than_s: float) -> int:
        """See `ObjectStore.abort_uploads`; temporary files have no prefix, so all old ones go."""
        checked(prefix)
        with self._temporary() as now:
            limit = now.stat().st_mtime - older_than_s  # the file system's clock, not ours
            old = [each for each in now.parent.iterdir() if each.stat().st_mtime < limit]
            for each in old:
                each.unlink(missing_ok=True)
        return len(old)

    def _store(self, prefix: str, source: BinaryIO) -> Blob:
        checked(prefix)
        with self._temporary() as temporary:
            sha256, size = _copy(source, temporary)
            target = self._path(f"{prefix}/{sha256}")
            # a file of another size can only be damage from below, and is put right
            if not target.exists() or target.stat().st_size != size:
                _place(temporary, target)
        return Blob(f"{prefix}/{sha256}", sha256, size)

    @contextmanager
    def _temporary(self) -> Iterator[Path]:
        with disk_errors(self.root):
            (self.root / ".tmp").mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self.root / ".tmp")
            os.close(handle)
            try:
                yield Path(name)
            finally:
                Path(name).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self.root / checked(key)

    def _existing(self, key: str) -> Path:
        path = self._path(key)
        if not path.is_file():
            raise NotFound(f"no object {key!r} in {self.root}")
        return path


class _Window(io.RawIOBase):
    """The next `left` bytes of a file, which is not closed with it."""

    def __init__(self, file: BinaryIO, left: int) -> None:
        self._file = file
        self._left = left

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override] # a Buffer, in effect
        """Read on, up to the window's end."""
        data = self._file.read(min(len(buffer), self._left))
        buffer[: len(data)] = data
        self._left -= len(data)
        return len(data)


def _copy(source: BinaryIO, target: Path) -> tuple[str, int]:
    """Copy and digest in one pass; returns the SHA-256 and the size."""
    digest, size = hashlib.sha256(), 0
    with target.open("wb") as file:
        while chunk := source.read(CHUNK):
            digest.update(chunk)
            size += file.write(chunk)
    return digest.hexdigest(), size


def _place(temporary: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    settle(temporary, target)
