"""The file system that a home lies on: SQLite's locks do not hold on those of a network."""

import os
from pathlib import Path

from db.database_url import parse_url
from db.errors import GenmillError, Refused
from db.path_errors import shown
from worker.settings import Settings

MOUNTS = Path("/proc/self/mountinfo")  # proc(5); Linux has it
NETWORK = {
    *(
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "afs",
        "ceph",
        "lustre",
        "gpfs",
        "beegfs",
        "glusterfs",
    ),
    *("fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.ceph-fuse", "fuse.s3fs", "fuse.rclone"),
}


def sqlite_on_network(settings: Settings) -> GenmillError | None:
    """What to tell of a database that is an SQLite file on another machine; None if it is not."""
    try:
        url = parse_url(settings.database)
    except Refused:  # whoever opens it says what is wrong
        return None
    file = Path(str(url.database)).absolute()
    if url.get_backend_name() != "sqlite" or not (kind := network_file_system(file.parent)):
        return None
    return GenmillError(
        f"the database {shown(file)} lies on a network file system ({kind}), where SQLite may lose "
        "or damage it",
        remedy="set GENMILL_HOME to a folder on a local disk, or GENMILL_DATABASE_URL to "
        "PostgreSQL; the store may stay there (GENMILL_STORE_URL)",
    )


def network_file_system(folder: Path) -> str | None:
    """The type of the network file system that a folder lies on; None if it is local or unknown."""
    try:
        device = folder.stat().st_dev
        lines = MOUNTS.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return None
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in lines:
        mount, _, kind = line.partition(" - ")
        if mount.split()[2] == wanted:
            name = kind.split()[0]
            return name if name in NETWORK else None
    return None
