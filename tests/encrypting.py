"""Encrypted stores for tests: a master key in a file, and a command in the place of a KMS."""

from pathlib import Path

from worker.keys.master import FileMaster
from worker.store import ByteStore
from worker.store.data_key import DataKey
from worker.store.encrypted import EncryptedStore

# it hides nothing, and writes a line for each call
KMS = """#!/bin/sh
echo "$1" >> '{log}'
case "$1" in wrap) exec base64 ;; unwrap) exec base64 -d ;; esac
exit 1
"""


def encrypt(store: ByteStore, folder: Path, name: str = "master.key") -> EncryptedStore:
    """The store, with its data key wrapped by the key in a file of the folder."""
    master = FileMaster(folder / name, home=folder)
    return EncryptedStore(store, DataKey(store, lambda: master))


def make_kms(folder: Path) -> Path:
    """A command for `GENMILL_KEY_COMMAND`; it logs its calls in `kms.log`."""
    path = folder / "kms"
    path.write_text(KMS.format(log=folder / "kms.log"))
    path.chmod(0o700)
    return path
