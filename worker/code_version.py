"""The version of the code that runs, with its commit: what records say that something was made by.

`pyproject.toml` has hatchling read it from here at a build, so this module imports nothing of ours.
"""

import re
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

VERSION = "0.1.0"

_FILE = Path(__file__)
_ROOT = _FILE.parents[1]
_COMMIT = _FILE.with_name("commit.txt")  # `6efa71a`: for builds where there is no repository
_SHOWN = 7  # digits of a commit


@cache
def code_version() -> str:
    """`0.1.0+g6efa71a`: in a checkout the commit now, of an installed wheel that of its build.

    Just `0.1.0` where no commit is known.
    """
    return _of_checkout() or _of_wheel() or VERSION


def version_to_build() -> str:
    """The version of a wheel or image that is built now."""
    return _of_checkout() or _with_commit(_read(_COMMIT)) or VERSION


def _of_checkout() -> str | None:
    try:
        commit = _head(_ROOT / ".git")
    except (OSError, UnicodeDecodeError):
        return None
    return _with_commit(commit[:_SHOWN]) if re.fullmatch(r"[0-9a-f]{40,64}", commit) else None


def _head(git: Path) -> str:
    """The commit that is checked out: gitrepository-layout(5), without running git.

    Files are read, so that all processes of a checkout say the same, whether git answers or not.
    """
    folder = git
    if git.is_file():  # of a further work tree
        folder = git.parent / git.read_text("utf-8").removeprefix("gitdir:").strip()
    head = (folder / "HEAD").read_text("utf-8").strip()
    if not head.startswith("ref:"):
        return head
    ref, common = head.removeprefix("ref:").strip(), folder / "commondir"
    places = [folder, folder / common.read_text("utf-8").strip()] if common.is_file() else [folder]
    for place in places:
        if (place / ref).is_file():
            return (place / ref).read_text("utf-8").strip()
    lines = (places[-1] / "packed-refs").read_text("utf-8").splitlines()
    return next((line.split()[0] for line in lines if line.endswith(f" {ref}")), "")


def _of_wheel() -> str | None:
    """The version of the installed distribution, if this file is one of its own."""
    try:
        installed = distribution("genmill")
        ours = _FILE.samefile(str(installed.locate_file("worker/code_version.py")))
    except (PackageNotFoundError, OSError):
        return None
    return installed.version if ours else None


def _with_commit(described: str) -> str | None:
    """A commit, as `git describe` may say it, after the version; None if there is none."""
    commit = described.strip().replace("-", ".")
    return f"{VERSION}+g{commit}" if commit else None


def _read(path: Path) -> str:
    try:
        return path.read_text("ascii")
    except (OSError, UnicodeDecodeError):
        return ""
