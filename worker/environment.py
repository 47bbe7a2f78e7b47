"""What a command needs to know before the settings are read: where the database is.

`settings` checks and types everything that can be set, but loading pydantic for it takes longer
than a command that only reads the record.
"""

import os
import stat
from pathlib import Path

from db.errors import Refused
from db.sharing import share_new_files

PREFIX = "GENMILL_"
ENV_FILE = Path(".env")
UNCHECKED = {"HOME", "DATABASE_URL", "REDIS_URL", "STORE_URL", "S3_ENDPOINT_URL", "PAGER"}


_BOTO_FILES = (
    "AWS_CA_BUNDLE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_CONFIG_FILE",
)


def default_home() -> Path:
    """The folder `genmill` in the user's data folder (XDG Base Directory Specification 0.8).

    Raises `Refused` for a user without a folder, as in a container.
    """
    try:
        return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "genmill"
    except RuntimeError:
        raise Refused(
            f"user {os.geteuid()} has no folder for data, and HOME is not set",
            remedy="set GENMILL_HOME to a folder that you can write",
        ) from None


def default_pager() -> str:
    """The command line of the user's pager, for all programs; empty for none."""
    return os.environ.get("PAGER", "less")


def pager_environment() -> dict[str, str]:
    """The environment of a pager; `less` shows colours, and ends by itself on one screen."""
    return {"LESS": "FRX", "LV": "-c"} | os.environ


def wants_colours() -> bool:
    """Whether a terminal is to show colours: not with NO_COLOR (no-color.org), nor a dumb one."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def boto_files() -> dict[str, str]:
    """The files that boto reads by itself, by the variables that name them."""
    return {name: path for name in _BOTO_FILES if (path := os.environ.get(name))}


def sqlite_url(home: Path) -> str:
    """The SQLAlchemy URL of a home's own database."""
    return f"sqlite:///{home / 'genmill.db'}"


def env_file_fault() -> str | None:
    """Why the `.env` of the working folder is not read; None if it is read, or not there.

    It says where Genmill works and what it runs there, so it is obeyed only where nobody but this
    user (and root) can have written it.
    """
    if not os.path.lexists(ENV_FILE):
        return None
    for path, what in ((ENV_FILE, "it"), (Path(), "its folder")):
        try:
            found = path.stat()
        except OSError:
            continue  # whoever reads it will say what is wrong
        if found.st_uid not in {0, os.geteuid()}:
            return f"{what} belongs to another user"
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return f"other users can write to {what}"
    return None


def variables() -> dict[str, str]:
    """The settings in the environment: `HOME` for `GENMILL_HOME`. Some hold passwords."""
    return {
        name.upper().removeprefix(PREFIX): value
        for name, value in os.environ.items()
        if name.upper().startswith(PREFIX)
    }


def database_url() -> str | None:
    """The database's URL; None if the settings must be read, because one of them needs checking.

    It may hold a password: never print it.
    """
    given = variables()
    if given.keys() - UNCHECKED or ENV_FILE.exists():
        return None
    home = Path(given["HOME"]) if given.get("HOME") else default_home()
    share_new_files(home)
    return given.get("DATABASE_URL") or sqlite_url(home)


def variable(name: str) -> str | None:
    """A variable of the environment that a user has named, as one that holds a secret."""
    return os.environ.get(name)
