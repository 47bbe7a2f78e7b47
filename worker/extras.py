"""What the base install leaves out: the packages of each extra, and the error without them."""

import importlib.util
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from db.errors import MissingPackage

# the distributions of `pyproject.toml` by the names that they are imported by
EXTRAS = {
    "marks": {"c2pa": "c2pa-python", "mutagen": "mutagen"},
    "worker": {
        "c2pa": "c2pa-python",
        "mutagen": "mutagen",
        "torch": "torch",
        "transformers": "transformers",
        "peft": "peft",
        "tokenizers": "tokenizers",
        "sklearn": "scikit-learn",
        "matplotlib": "matplotlib",
    },
    "parquet": {"pyarrow": "pyarrow"},
    "tensorboard": {"tensorboard": "tensorboard"},
    "publishing": {
        "asyncssh": "asyncssh",
        "feedgen": "feedgen",
        "httpx": "httpx",
        "huggingface_hub": "huggingface_hub",
        "jinja2": "jinja2",
        "standardwebhooks": "standardwebhooks",
        "webdav4": "webdav4",
    },
}


def require(extra: str, what: str, *, remedy: str | None = None) -> None:
    """Raise `MissingPackage` unless every package of `extra` is there; none is imported.

    The error says that `what` needs them. `remedy` is what else can be done about it.
    """
    if missing := [module for module in EXTRAS[extra] if not _is_there(module)]:
        raise _error(extra, missing, what, remedy)


@contextmanager
def needed_for(what: str, *, remedy: str | None = None) -> Iterator[None]:
    """Raise `MissingPackage`, as `require` does, if an import in the block misses a package."""
    try:
        yield
    except ModuleNotFoundError as error:
        if known := missing_package(error, what, remedy=remedy):
            raise known from None
        raise


def missing_package(
    error: ModuleNotFoundError, what: str = "this command", *, remedy: str | None = None
) -> MissingPackage | None:
    """The error to raise for a failed import of an extra's package; None for any other's."""
    module = (error.name or "").partition(".")[0]
    for extra, packages in EXTRAS.items():
        if module in packages:
            return _error(extra, [module], what, remedy)
    return None


def install_line(extra: str) -> str:
    """What to type to get an extra into the environment that runs this process."""
    python, pip = Path(sys.executable), shutil.which("pip")
    is_ours = pip is not None and Path(pip).parent == python.parent
    command = "pip" if is_ours else f"{shlex.quote(str(python))} -m pip"
    return f"{command} install 'genmill[{extra}]'"


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # half removed, or kept from being imported
        return False


def _error(extra: str, missing: Sequence[str], what: str, remedy: str | None) -> MissingPackage:
    *most, last = (EXTRAS[extra][module] for module in missing)
    names = f"{', '.join(most)} and {last}" if most else last
    verb = "are" if most else "is"
    line = f"run `{install_line(extra)}`"
    return MissingPackage(
        f"{what} needs {names}, which {verb} not installed here",
        remedy=f"{line}, or {remedy}" if remedy else line,
    )
