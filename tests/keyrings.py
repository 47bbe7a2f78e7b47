"""Keys on record, made as the command line makes them."""

from pathlib import Path

from db.keys import Purpose
from db.session import Database
from worker.keys import changes
from worker.keys.keyring import Keyring, load_keyring
from worker.keys.master import open_master
from worker.settings import Settings


def settings_in(home: Path) -> Settings:
    """Settings whose installation key lies in this home."""
    return Settings(_env_file=None, home=home, key_file=None, key_command=None, tenant="default")


def add_key(database: Database, settings: Settings, purpose: str, **options: object) -> str:
    """Create a key; return its id."""
    master, tenant = open_master(settings), str(options.pop("tenant", settings.tenant))
    return changes.create(database, master, Purpose(purpose), tenant, who="ann", **options).id


def rotate_key(database: Database, settings: Settings, key_id: str) -> str:
    """Rotate a key; return the new one's id."""
    return changes.rotate(database, open_master(settings), key_id, who="ann").id


def revoke_key(database: Database, key_id: str) -> None:
    database.transact(lambda session: changes.revoke(session, key_id, "it was stolen", who="ann"))


def keyring_of(database: Database, settings: Settings, **options: str) -> Keyring:
    with database.read() as session:
        return load_keyring(session, settings, **options)
