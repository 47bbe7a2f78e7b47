import os
from pathlib import Path

import pytest
from pydantic import SecretStr

from scheduler.machine import file_systems
from scheduler.machine.doctor import examine
from scheduler.machine.file_systems import sqlite_on_network
from worker.settings import Settings

LINE = "36 35 {device} /share /mnt rw,noatime shared:1 - {kind} server:/share rw\n"


@pytest.fixture
def mounted(tmp_path, monkeypatch):
    """Say which kind of file system the home lies on."""

    def tell(kind: str) -> Settings:
        device = tmp_path.stat().st_dev
        text = LINE.format(device=f"{os.major(device)}:{os.minor(device)}", kind=kind)
        (tmp_path / "mounts").write_text(LINE.format(device="0:9999", kind="ext4") + text)
        monkeypatch.setattr(file_systems, "MOUNTS", tmp_path / "mounts")
        return Settings(_env_file=None, home=tmp_path)

    return tell


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs"])
def test_a_database_on_a_network_file_system_is_told(mounted, kind):
    settings = mounted(kind)
    told = str(sqlite_on_network(settings))
    assert f"{settings.home}/genmill.db lies on a network file system ({kind})" in told
    [home] = examine(settings, ["home"])
    assert not home["ok"]
    assert "GENMILL_DATABASE_URL" in home["remedy"]


def test_all_is_well_on_a_local_one_and_with_postgresql(mounted):
    assert sqlite_on_network(mounted("ext4")) is None
    elsewhere = {"database_url": SecretStr("postgresql://ann@db/x")}
    assert sqlite_on_network(mounted("nfs").model_copy(update=elsewhere)) is None


def test_where_it_cannot_be_told_nothing_is(mounted, monkeypatch):
    settings = mounted("nfs")
    monkeypatch.setattr(file_systems, "MOUNTS", Path("/nowhere"))
    assert sqlite_on_network(settings) is None
