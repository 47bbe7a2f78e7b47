"""Who may use what lies in a folder: its owner alone, or a group that shares it."""

import os
import stat
from pathlib import Path

GROUP_SHARED = stat.S_ISGID | stat.S_IRWXG
OWNER_ONLY, GROUP_TOO = 0o077, 0o007  # umasks


def is_shared(folder: Path) -> bool:
    """Whether a group shares a folder: it is writable by it, and new files in it are the group's.

    Nothing of Genmill's makes a folder so: an administrator does (`install -d -m 2770 -g GROUP`).
    """
    try:
        return folder.stat().st_mode & GROUP_SHARED == GROUP_SHARED
    except OSError:
        return False


def folder_mode(home: Path) -> int:
    """The mode of new folders in `home`."""
    return 0o770 if is_shared(home) else 0o700


def file_mode(home: Path) -> int:
    """The mode of new files in `home`."""
    return 0o660 if is_shared(home) else 0o600


def share_new_files(home: Path) -> None:
    """Let this process's new files be the group's, too, if `home` is shared."""
    if is_shared(home):
        os.umask(GROUP_TOO)
