import os
import resource
import subprocess
import sys
import threading

import pytest

from scheduler.machine import rotating_log
from scheduler.machine.rotating_log import LIMIT_BYTES, copy_to_log, open_log


@pytest.fixture
def writer():
    """The writing end of a pipe, and its reading end as a number."""
    source, sink = os.pipe()
    with os.fdopen(sink, "wb", buffering=0) as file:
        yield file, source
    os.close(source)


def copied(writer, path, *chunks, limit_bytes):
    """Copy what is written, each chunk at once."""
    file, source = writer
    reader = threading.Thread(
        target=copy_to_log, args=(source, path), kwargs={"limit_bytes": limit_bytes}
    )
    reader.start()
    for chunk in chunks:
        file.write(chunk)
    file.close()
    reader.join()


def test_a_log_rotates_as_it_grows_and_loses_none_of_its_newest_lines(writer, tmp_path):
    lines = [b"line %06d\n" % number for number in range(30_000)]
    path = tmp_path / "one.log"
    copied(writer, path, *lines, limit_bytes=200_000)
    kept = (tmp_path / "one.log.1").read_bytes() + path.read_bytes()
    assert b"".join(lines).endswith(kept)
    assert len(kept) > 200_000
    assert sum(each.stat().st_size for each in tmp_path.iterdir()) < 600_000
    assert path.stat().st_mode & 0o077 == 0


def test_output_without_line_ends_is_bounded_too(writer, tmp_path):
    copied(writer, tmp_path / "one.log", *[b"x" * 1000] * 1000, limit_bytes=100_000)
    assert sum(each.stat().st_size for each in tmp_path.iterdir()) < 700_000


def test_on_a_full_disk_whoever_writes_does_not_wait(tmp_path):
    log = tmp_path / "one.log"

    def fill_disk():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    command = [sys.executable, "-I", "-S", rotating_log.__file__, log]
    subprocess.run(command, input=b"line\n" * 100_000, preexec_fn=fill_disk, check=True)
    assert log.stat().st_size == 1000


def test_a_large_log_is_set_aside_before_it_grows_on(tmp_path):
    log = tmp_path / "one.log"
    log.write_bytes(b"x" * (LIMIT_BYTES + 1))
    open_log(log).close()
    assert (log.stat().st_size, (tmp_path / "one.log.1").stat().st_size) == (0, LIMIT_BYTES + 1)
