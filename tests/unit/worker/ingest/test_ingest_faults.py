"""Files that cannot be unpacked or read are left out with their reason, whatever their format."""

import errno
import gzip
import io
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from db.errors import BadInput, Unreachable
from worker.cleaning.recipe import Recipe
from worker.ingest.ingest import ingest
from worker.media.samples.wav import write_wav
from worker.media.sources import image_files
from worker.music import midi, notes


def image(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (32, 32), number * 40).save(buffer, "PNG")
    return buffer.getvalue()


def sound(number: int) -> bytes:
    return write_wav(np.arange(80, dtype=np.int16) + number, 8000, {})


def text(number: int) -> bytes:
    return f"document {number}, once upon a time there was a fox".encode()


def tune(number: int) -> bytes:
    return midi.write_midi(notes.read(f"6{number}:4 62:2"))


FORMATS = [(".png", image), (".wav", sound), (".txt", text), (".mid", tune)]
each_format = pytest.mark.parametrize(("suffix", "make"), FORMATS, ids=[s for s, _ in FORMATS])
Make = Callable[[int], bytes]


def write_files(folder: Path, suffix: str, make: Make) -> Path:
    """Four files, of which the third, `2`, is to be damaged."""
    folder.mkdir()
    for number in range(4):
        (folder / f"{number}{suffix}").write_bytes(make(number))
    return folder


def write_zip(path: Path, suffix: str, make: Make) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(4):
            archive.writestr(f"{number}{suffix}", make(number))
    return path


def wrong_sum(archive: bytearray, entry: int, local: int) -> None:
    archive[entry + 16] ^= 1


def deflate64(archive: bytearray, entry: int, local: int) -> None:
    archive[entry + 10], archive[local + 8] = 9, 9


def damaged_stream(archive: bytearray, entry: int, local: int) -> None:
    names, extra = struct.unpack_from("<HH", archive, local + 26)
    archive[local + 30 + names + extra] = 0xFF


def cut_short(archive: bytearray, entry: int, local: int) -> None:
    struct.pack_into("<I", archive, entry + 20, 3)


def longer_than_stated(archive: bytearray, entry: int, local: int) -> None:
    struct.pack_into("<I", archive, entry + 24, 5)


def encrypted(archive: bytearray, entry: int, local: int) -> None:
    archive[entry + 8] |= 1
    archive[local + 6] |= 1


@each_format
@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (wrong_sum, "Bad CRC-32"),
        (deflate64, "Deflate64"),
        (damaged_stream, "cannot be unpacked"),
        (cut_short, "cannot be unpacked"),
        (longer_than_stated, "cannot be unpacked"),
        (encrypted, "encrypted"),
    ],
)
def test_a_damaged_member_of_a_zip_is_left_out(tmp_path, suffix, make, damage, says):
    path = write_zip(tmp_path / "set.zip", suffix, make)
    archive = bytearray(path.read_bytes())
    entry = archive.rindex(f"2{suffix}".encode()) - 46  # of the central directory
    damage(archive, entry, struct.unpack_from("<I", archive, entry + 42)[0])
    path.write_bytes(archive)
    (reject,) = ingest(path, tmp_path / "out").rejects
    assert reject.name == f"2{suffix}"
    assert says in reject.reason


@each_format
def test_a_file_that_may_not_be_read_is_left_out(tmp_path, suffix, make, plain_user):
    folder = write_files(tmp_path / "set", suffix, make)
    (folder / f"2{suffix}").chmod(0)
    result = ingest(folder, tmp_path / "out")
    assert [(each.name, each.reason) for each in result.rejects] == [
        (f"2{suffix}", "cannot be read: Permission denied")
    ]
    assert sum(result.manifest["counts"].values()) == 3


@each_format
@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="no file here whose reading fails")
def test_a_file_whose_reading_fails_is_left_out(tmp_path, suffix, make):
    folder = write_files(tmp_path / "set", suffix, make)
    (folder / f"2{suffix}").unlink()
    (folder / f"2{suffix}").symlink_to("/proc/self/mem")  # opens; its first page is not mapped
    (reject,) = ingest(folder, tmp_path / "out").rejects
    assert reject.name == f"2{suffix}"
    assert "cannot be read" in reject.reason
    assert "Input/output error" in reject.reason


@each_format
@pytest.mark.parametrize("code", [errno.ESTALE, errno.ENOTCONN, errno.EMFILE])
def test_half_of_a_source_that_is_away_is_not_taken_for_all(
    tmp_path, suffix, make, monkeypatch, code
):
    folder, read = write_files(tmp_path / "set", suffix, make), os.fstat

    def fstat(handle: int) -> os.stat_result:
        if Path(f"/proc/self/fd/{handle}").readlink() == folder / f"2{suffix}":
            raise OSError(code, os.strerror(code))
        return read(handle)

    monkeypatch.setattr(os, "fstat", fstat)
    with pytest.raises(Unreachable, match="cannot be read"):
        ingest(folder, tmp_path / "out")


@pytest.mark.parametrize(
    ("code", "kind"), [(errno.ESTALE, Unreachable), (errno.EIO, BadInput), (None, BadInput)]
)
def test_a_decoder_that_is_cut_off_tells_why(code, kind):
    class Away(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError(code, "cut off") if code else OSError("truncated")

    with pytest.raises(kind):
        image_files._use(Away(image(1)), lambda opened: opened.load())


def test_half_of_an_archive_that_is_away_is_not_taken_for_all(tmp_path, monkeypatch):
    archive, read = write_zip(tmp_path / "set.zip", ".txt", text), zipfile.ZipFile.read

    def away(self, member, *more):
        if member.filename == "2.txt":
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return read(self, member, *more)

    monkeypatch.setattr(zipfile.ZipFile, "read", away)
    with pytest.raises(Unreachable, match="Stale"):
        ingest(archive, tmp_path / "out")


@each_format
def test_a_folder_inside_that_may_not_be_read_is_left_out(tmp_path, suffix, make, plain_user):
    folder = write_files(tmp_path / "set", suffix, make)
    (folder / "closed").mkdir(mode=0)
    result = ingest(folder, tmp_path / "out")
    assert [(each.name, each.reason) for each in result.rejects] == [
        ("closed", "cannot be read: Permission denied")
    ]
    assert sum(result.manifest["counts"].values()) == 4


def test_a_link_that_leads_to_itself_is_left_out(tmp_path):
    folder = write_files(tmp_path / "set", ".txt", text)
    (folder / "loop.txt").symlink_to("loop.txt")
    (reject,) = ingest(folder, tmp_path / "out").rejects
    assert (reject.name, "cannot be read" in reject.reason) == ("loop.txt", True)


@pytest.mark.parametrize(
    "name", ["a.txt", "a.jsonl", "a.zip", "train-images-idx3-ubyte", "a", "folder"]
)
def test_the_only_source_that_may_not_be_read_is_named(tmp_path, name, plain_user):
    path = tmp_path / name
    path.mkdir() if name == "folder" else path.write_bytes(b"{}")
    path.chmod(0)
    with pytest.raises(BadInput, match=rf"^{path} cannot be read: Permission denied; give"):
        ingest(path, tmp_path / "out")


@pytest.mark.parametrize("kind", [None, "text"])
def test_a_pipe_is_refused_before_anything_waits_for_its_writer(tmp_path, kind):
    os.mkfifo(tmp_path / "a.txt")
    with pytest.raises(BadInput, match=r"^a\.txt: a pipe or device, not a file"):
        ingest(tmp_path / "a.txt", tmp_path / "out", Recipe(kind=kind))


def test_a_folder_of_nothing_but_what_may_not_be_read_says_so(tmp_path, plain_user):
    for name in ("sub", "text", "idx"):
        (tmp_path / name).mkdir()
    (tmp_path / "sub" / "closed").mkdir(mode=0)
    for path in (tmp_path / "text" / "a.txt", tmp_path / "idx" / "train-images-idx3-ubyte"):
        path.touch(mode=0)
    for name, left_out in (("sub", "closed"), ("text", "a.txt")):
        says = rf"{name}: nothing usable in it, 1 left out \(the first: {left_out}: cannot be read"
        with pytest.raises(BadInput, match=says):
            ingest(tmp_path / name, tmp_path / f"{name}-out")
    with pytest.raises(BadInput, match=r"^train-images-idx3-ubyte: cannot be read"):
        ingest(tmp_path / "idx", tmp_path / "idx-out")


def test_labels_that_may_not_be_read_are_not_missing_labels(tmp_path, plain_user):
    folder = tmp_path / "set"
    folder.mkdir()
    header = b"\0\0\x08\x03" + struct.pack(">III", 3, 8, 8)
    (folder / "train-images-idx3-ubyte").write_bytes(header + bytes(3 * 64))
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(b"\0\0\x08\x01\0\0\0\3abc"))
    (folder / "train-labels-idx1-ubyte.gz").chmod(0)
    with pytest.raises(BadInput, match=r"^train-labels-idx1-ubyte\.gz: cannot be read"):
        ingest(folder, tmp_path / "out")


def test_captions_that_may_not_be_read_are_not_missing_captions(tmp_path, plain_user):
    folder = write_files(tmp_path / "set", ".png", image)
    (folder / "metadata.jsonl").touch(mode=0)
    with pytest.raises(BadInput, match=r"^metadata\.jsonl: cannot be read: Permission denied$"):
        ingest(folder, tmp_path / "out")


def test_a_target_that_may_not_be_written_is_still_told_as_such(tmp_path, plain_user):
    folder = write_files(tmp_path / "set", ".txt", text)
    (tmp_path / "out").mkdir()
    (tmp_path / "out").chmod(0o555)
    with pytest.raises(Unreachable, match="out cannot be written to"):
        ingest(folder, tmp_path / "out")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("name", ["set.txt", "rows.jsonl"])
def test_a_full_disk_is_not_blamed_on_the_source(tmp_path, name, monkeypatch):
    (tmp_path / name).write_text('{"text": "some words"}\n' * 9000)
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(Path, "open", opens_full_disk_for(tmp_path / "out"))
    with pytest.raises(Unreachable, match="no space left"):
        ingest(tmp_path / name, tmp_path / "out")


def opens_full_disk_for(folder: Path) -> Callable:
    """`Path.open` for a machine where what is written below `folder` lies on a full disk."""
    plain = Path.open

    def open_path(path: Path, mode: str = "r", **options):
        full = folder in path.parents and "w" in mode
        return plain(Path(os.devnull).with_name("full") if full else path, mode, **options)

    return open_path


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv"])
def test_captions_that_are_a_link_to_nothing_are_not_missing(tmp_path, name):
    folder = write_files(tmp_path / "set", ".png", image)
    (folder / name).symlink_to("gone")
    with pytest.raises(BadInput, match=f"{name}: cannot be read: it is a link to gone"):
        ingest(folder, tmp_path / "out")


def test_idx_labels_that_are_a_link_to_nothing_are_not_missing(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    header = b"\0\0\x08\x03" + struct.pack(">III", 3, 8, 8)
    (folder / "train-images-idx3-ubyte").write_bytes(header + bytes(3 * 64))
    (folder / "train-labels-idx1-ubyte").symlink_to("gone")
    with pytest.raises(BadInput, match="train-labels-idx1-ubyte: cannot be read: it is a link to"):
        ingest(folder, tmp_path / "out")


def test_a_folder_that_is_a_link_to_nothing_is_left_out_as_such(tmp_path):
    folder = write_files(tmp_path / "set", ".txt", text)
    (folder / "cats").symlink_to("gone")
    (reject,) = ingest(folder, tmp_path / "out").rejects
    assert (reject.name, "a link to gone, which is not there" in reject.reason) == ("cats", True)
