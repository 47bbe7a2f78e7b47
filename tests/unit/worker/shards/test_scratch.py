"""Folders for work under way."""

import os
import signal
from pathlib import Path

import pytest

from db.errors import Unreachable
from worker.shards.scratch import scratch, sweep

FULL = Path("/dev/full")


def test_a_folder_is_gone_after_its_work_even_if_that_failed(tmp_path) -> None:
    def work():
        with scratch(tmp_path / "work") as folder:
            (folder / "big").write_bytes(b"x")
            return 1 / 0

    with pytest.raises(ZeroDivisionError):
        work()
    assert list((tmp_path / "work").iterdir()) == []


@pytest.mark.skipif(not FULL.exists(), reason="no device that is always full here")
def test_a_disk_that_fills_up_within_the_work_is_no_fault_of_the_work(tmp_path) -> None:
    told = pytest.raises(Unreachable, match=f"no space left on the disk of {tmp_path}")
    with told, scratch(tmp_path):
        FULL.write_bytes(b"x")
    assert list(tmp_path.iterdir()) == []


def test_other_errors_of_the_system_stay_what_they_are(tmp_path) -> None:
    with pytest.raises(FileNotFoundError), scratch(tmp_path) as folder:
        (folder / "nothing").read_bytes()


def test_what_a_killed_process_left_is_swept_and_what_is_in_use_is_not(tmp_path) -> None:
    pid = os.fork()
    if pid == 0:
        with scratch(tmp_path):
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    with scratch(tmp_path) as mine:
        assert sweep(tmp_path) == 1
        assert list(tmp_path.iterdir()) == [mine]


def test_what_cannot_be_removed_is_logged_and_left(tmp_path, caplog) -> None:
    stranger = tmp_path / "work-stranger"
    (stranger / ".lock").mkdir(parents=True)  # opening it fails, for root too
    assert sweep(tmp_path) == 0
    assert stranger.exists()
    assert f"{stranger}: Is a directory" in caplog.text
