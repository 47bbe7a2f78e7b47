"""Files in a folder that others serve or read: whole or not at all, and readable by everybody."""

from contextlib import suppress
from pathlib import Path

from db.errors import NotFound
from worker.files import atomic_write, disk_errors, inside
from worker.publishing.base import TargetAway

FILE_MODE, FOLDER_MODE = 0o644, 0o755  # whatever the umask of the worker, which is private


def require_folder(root: Path) -> None:
    """Raise `TargetAway` if a folder is missing, as one is that is not mounted."""
    if root.is_file():
        raise TargetAway(f"{root} is a file, not a folder", remedy="remove it, or use another path")
    if not root.is_dir():
        raise TargetAway(f"folder {root} is not there", remedy="create it, or mount it")


def path_of(root: Path, key: str) -> Path:
    """The file of a key, whose parts are plain names, below a folder. Raises `BadInput`."""
    path = root
    for part in key.split("/"):
        path = inside(path, part)
    return path


def write(root: Path, key: str, data: bytes) -> None:
    """Write a file, and the folders above it. Raises `Unreachable`."""
    require_folder(root)
    path = path_of(root, key)
    with disk_errors(root):
        _make_folders(root, path.parent)
        with atomic_write(path) as file:
            Path(file.name).chmod(FILE_MODE)
            file.write(data)


def read(root: Path, key: str) -> bytes:
    """The bytes of a file. Raises `NotFound` and `Unreachable`."""
    require_folder(root)
    try:
        with disk_errors(root):
            return path_of(root, key).read_bytes()
    except FileNotFoundError:
        raise NotFound(f"no file {key!r} in {root}") from None


def remove(root: Path, key: str) -> None:
    """Remove a file if it is there, and the folders that this leaves empty."""
    require_folder(root)
    path = path_of(root, key)
    with disk_errors(root), suppress(FileNotFoundError):
        path.unlink()
    with suppress(OSError):  # not empty, or in use again
        for folder in path.parents:
            if folder == root:
                break
            folder.rmdir()


def _make_folders(root: Path, folder: Path) -> None:
    for each in reversed([folder, *folder.parents]):
        if each != root and each.is_relative_to(root) and not each.exists():
            each.mkdir(exist_ok=True)
            each.chmod(FOLDER_MODE)
