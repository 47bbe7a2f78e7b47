"""Folders for work under way."""

import os
import signal

import pytest

from worker.scratch import scratch, sweep


def test_a_folder_is_gone_after_its_work_even_if_that_failed(tmp_path) -> None:
    def work():
        with scratch(tmp_path / "work") as folder:
            (folder / "big").write_bytes(b"x")
            return 1 / 0

    with pytest.raises(ZeroDivisionError):
        work()
    assert list((tmp_path / "work").iterdir()) == []


def test_what_a_killed_process_left_is_swept_and_what_is_in_use_is_not(tmp_path) -> None:
    pid = os.fork()
    if pid == 0:
        with scratch(tmp_path):
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    with scratch(tmp_path) as mine:
        assert sweep(tmp_path) == 1
        assert list(tmp_path.iterdir()) == [mine]
