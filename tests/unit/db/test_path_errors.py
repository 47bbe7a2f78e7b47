"""An error of the system becomes one that names the path at fault, why, and what to do."""

import errno
import os
import threading
import time
from pathlib import Path

import pytest

from db.errors import BadInput, GenmillError, ShortOfMemory, Unreachable
from db.path_errors import as_genmill, is_missing, read_whole, reading, shown
from worker.files import disk_errors


def error(number: int, *names: object) -> OSError:
    return OSError(number, os.strerror(number), *names)


def test_what_the_error_names_is_at_fault_and_not_what_is_read(tmp_path):
    named = pytest.raises(BadInput, match=f"^{tmp_path}/b cannot be read: No such file .*; check")
    with named, reading(tmp_path / "a"):
        (tmp_path / "b").read_bytes()


def test_an_error_without_a_name_is_about_what_is_read(tmp_path):
    unnamed = pytest.raises(BadInput, match=f"^{tmp_path} cannot be read: Permission denied; ")
    with unnamed, reading(tmp_path):
        raise error(errno.EACCES)


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        *[(n, Unreachable) for n in (errno.EIO, errno.EMFILE, errno.ESTALE, errno.EROFS)],
        (errno.ENOSPC, Unreachable),
        (errno.ENOMEM, ShortOfMemory),
    ],
)
def test_what_the_disk_or_the_memory_lacks_is_not_blamed_on_the_input(tmp_path, number, kind):
    with pytest.raises(kind, match=f"{tmp_path}"), reading(tmp_path):
        raise error(number)


def test_a_decoders_error_passes(tmp_path):
    with pytest.raises(OSError, match=r"^no picture$"), reading(tmp_path):
        raise OSError("no picture")


def test_a_file_that_cannot_be_made_is_its_folders_fault(tmp_path):
    folder = pytest.raises(Unreachable, match=f"^{tmp_path} cannot be written to: Permission")
    with folder, disk_errors(tmp_path):
        raise error(errno.EACCES, str(tmp_path / ".new-1"))


def test_a_folder_in_the_way_of_a_file_is_named(tmp_path):
    (tmp_path / "new").touch()
    (tmp_path / "taken").mkdir()
    taken = pytest.raises(Unreachable, match=f"^{tmp_path}/taken cannot be written to: Is a")
    with taken, disk_errors(tmp_path):
        (tmp_path / "new").replace(tmp_path / "taken")


def test_what_lies_elsewhere_is_not_blamed_on_the_target(tmp_path):
    elsewhere = pytest.raises(Unreachable, match=r"^/elsewhere cannot be used: Permission denied; ")
    with elsewhere, disk_errors(tmp_path):
        raise error(errno.EACCES, "/elsewhere")


def test_a_link_is_said_to_lead_nowhere_wherever_it_is_in_the_path(tmp_path):
    (tmp_path / "link").symlink_to("gone")
    says = f"{tmp_path}/link is a link to gone, which is not there; correct or remove the link"
    with pytest.raises(BadInput, match=says), reading(tmp_path):
        (tmp_path / "link" / "a").read_bytes()


def test_a_path_is_shown_on_one_line():
    assert shown("a\nb\x1b[31mé\udce9") == r"a\nb\x1b[31mé\udce9"


def test_an_error_that_nobody_expected_still_names_its_file():
    assert str(as_genmill(error(errno.EMFILE, "x"))).startswith("x cannot be used: Too many open")
    assert as_genmill(error(errno.ENOSPC)).remedy == "free some space and run the command again"
    assert as_genmill(GenmillError("as it is")).message == "as it is"


def test_only_what_could_be_made_is_missing(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("gone")
    assert is_missing(tmp_path / "a" / "b")
    for path in ("file", "link", "file/a", "link/a", "x" * 300):
        assert not is_missing(Path(tmp_path, path))


@pytest.fixture
def pipe(tmp_path) -> Path:
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


@pytest.mark.parametrize("piped", [False, True])
def test_what_never_ends_or_has_no_end_yet_is_no_file(tmp_path, pipe, piped):
    """It would block, or fill the memory."""
    for path in [Path("/dev/zero"), *([] if piped else [pipe])]:
        with pytest.raises(BadInput, match=f"^{path} is not a file; give a file"):
            read_whole(path, "a head", limit_bytes=9, piped=piped)
    with pytest.raises(BadInput, match=f"^{tmp_path} cannot be read: Is a directory"):
        read_whole(tmp_path, "a head", limit_bytes=9, piped=piped)


def test_a_pipe_is_read_to_its_end_and_not_waited_for(pipe):
    assert read_whole(pipe, "a head", limit_bytes=9, piped=True) == b""
    ours, theirs = os.pipe()  # as of <(command)

    def write() -> None:
        with os.fdopen(theirs, "wb", buffering=0) as file:
            for part in (b"some", b"more"):
                time.sleep(0.02)
                file.write(part)

    writing = threading.Thread(target=write)
    writing.start()
    named = Path(f"/dev/fd/{ours}")
    assert read_whole(named, "a head", limit_bytes=9, piped=True) == b"somemore"
    writing.join()
    os.close(ours)


def test_a_file_that_is_too_large_is_told_the_limit(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    assert read_whole(path, "a head", limit_bytes=10) == b"0123456789"
    says = f"^{path} is too large for a head: it has more than 9 bytes; give another"
    with pytest.raises(BadInput, match=says):
        read_whole(path, "a head", limit_bytes=9, remedy="give another")
