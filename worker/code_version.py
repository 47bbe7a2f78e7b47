"""The version of the code that runs, with its commit: what records say that something was made by.

`pyproject.toml` has hatchling read it from here at a build, so this module imports nothing of ours.
"""

import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

VERSION = "0.1.0"

_FILE = Path(__file__)
_ROOT = _FILE.parents[1]
_COMMIT = _FILE.with_name("commit.txt")  # `6efa71a`: for builds where there is no repository
_PATIENCE_S = 5.0


@cache
def code_version() -> str:
    """`0.1.0+g6efa71a`; with `.dirty` where a checkout has files that are not as committed.

    In a checkout, the commit now; of an installed wheel, that of its build. Just `0.1.0` where no
    commit is known, because there is no git for example. Runs git once: call it where it is needed.
    """
    return _of_checkout() or _of_wheel() or VERSION


def version_to_build() -> str:
    """The version of a wheel or image that is built now."""
    return _of_checkout() or _with_commit(_read(_COMMIT)) or VERSION


def _of_checkout() -> str | None:
    repository = _ROOT / ".git"  # a folder or, in a further work tree, a file
    if not repository.exists():
        return None
    # named, so that variables of a git hook that runs us do not lead to another repository
    where = [f"--git-dir={repository}", f"--work-tree={_ROOT}"]
    what = ["describe", "--always", "--dirty", "--abbrev=7", "--exclude=*"]
    try:
        found = subprocess.run(  # noqa: S603 - words of ours
            ["git", "--no-optional-locks", *where, *what],  # noqa: S607 - the user's own git
            cwd=_ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PATIENCE_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return _with_commit(found.stdout)


def _of_wheel() -> str | None:
    """The version of the installed distribution, if this file is one of its own."""
    try:
        installed = distribution("genmill")
        ours = _FILE.samefile(str(installed.locate_file("worker/code_version.py")))
    except (PackageNotFoundError, OSError):
        return None
    return installed.version if ours else None


def _with_commit(described: str) -> str | None:
    """`6efa71a-dirty`, as git describes a commit, after the version; None if there is none."""
    commit = described.strip().replace("-", ".")
    return f"{VERSION}+g{commit}" if commit else None


def _read(path: Path) -> str:
    try:
        return path.read_text("ascii")
    except (OSError, UnicodeDecodeError):
        return ""
