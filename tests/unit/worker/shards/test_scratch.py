"""Folders for work under way."""

import os
import signal
import threading
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
    assert list((tmp_path / "work").glob("work-*")) == []


@pytest.mark.skipif(not FULL.exists(), reason="no device that is always full here")
def test_a_disk_that_fills_up_within_the_work_is_no_fault_of_the_work(tmp_path) -> None:
    told = pytest.raises(Unreachable, match=f"no space left on the disk of {tmp_path}")
    with told, scratch(tmp_path):
        FULL.write_bytes(b"x")
    assert list(tmp_path.glob("work-*")) == []


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
        assert list(tmp_path.glob("work-*")) == [mine]


def test_a_sweep_leaves_a_folder_alone_that_its_owner_has_not_locked_yet(
    tmp_path, monkeypatch
) -> None:
    sweeper = threading.Thread(target=sweep, args=(tmp_path,))
    open_file = os.open

    def open_and_let_sweep(path, *arguments, **options):
        lock = open_file(path, *arguments, **options)
        if Path(path).parent != tmp_path and sweeper.ident is None:
            sweeper.start()
            sweeper.join(0.3)
        return lock

    monkeypatch.setattr(os, "open", open_and_let_sweep)
    with scratch(tmp_path) as folder:
        sweeper.join()
        assert folder.is_dir()


def test_a_folder_whose_removal_was_cut_short_is_swept_though_its_lock_file_is_gone(
    tmp_path,
) -> None:
    (tmp_path / "work-rest").mkdir()
    (tmp_path / "work-rest" / "big").write_bytes(b"x")
    assert sweep(tmp_path) == 1
    assert list(tmp_path.glob("work-*")) == []


def test_what_cannot_be_removed_is_logged_and_left(tmp_path, caplog) -> None:
    stranger = tmp_path / "work-stranger"
    (stranger / ".lock").mkdir(parents=True)  # opening it fails, for root too
    assert sweep(tmp_path) == 0
    assert stranger.exists()
    assert f"{stranger}: Is a directory" in caplog.text


def test_a_place_that_cannot_be_swept_is_logged(tmp_path, caplog) -> None:
    (tmp_path / ".lock").mkdir()
    assert sweep(tmp_path) == 0
    assert f"{tmp_path}: Is a directory" in caplog.text


def test_there_is_nothing_to_sweep_before_any_work(tmp_path, caplog) -> None:
    assert sweep(tmp_path / "work") == 0
    assert caplog.text == ""
