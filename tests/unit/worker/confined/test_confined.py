"""A confined program answers the request that it was asked, whatever happened to the one before."""

import os
import resource
import signal

import pytest

from worker.confined import Confined

PROGRAM = "import time\ndef answer(it):\n    time.sleep(it.get('sleep', 0))\n    return it\n"


@pytest.fixture
def echo(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    made = Confined(tmp_path / "program.py", cpu_s=5, memory_bytes=1 << 30)
    yield made
    made.close()


@pytest.fixture
def many_files():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], 2048), before[1]))
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    yield
    for each in opened:
        os.close(each)
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_it_answers_however_many_files_are_open(echo, many_files):
    assert echo.ask({"n": 1}) == {"n": 1}


def test_an_answer_that_nobody_waits_for_is_not_the_next_one_s(echo):
    assert echo.ask({"n": 1}) == {"n": 1}

    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(KeyboardInterrupt):
            echo.ask({"n": 2, "sleep": 0.5})
    finally:
        signal.signal(signal.SIGALRM, before)
    assert echo.ask({"n": 3}) == {"n": 3}
