"""Folders and archives of every kind: what is taken, left out with a reason, ignored or refused."""

import bz2
import gzip
import io
import lzma
import os
import socket
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from backports import zstd

from db.errors import BadInput
from worker.source_files import members as limits
from worker.source_files.members import Rejects
from worker.source_files.source import open_source

FILES = {"cats/1.txt": b"meow", "dogs/2.txt": b"woof" * 500, "stray.txt": b""}


def contents(path: Path, scratch: Path | None = None) -> tuple[dict[str, bytes], Rejects]:
    """What is read of a source, and what is not."""
    rejects, found = Rejects(), {}
    with open_source(path, scratch) as source:
        for member in source.members(rejects):
            try:
                with member.open() as file:
                    found[member.name] = file.read()
            except BadInput as error:
                rejects.add(member.name, str(error))
    return found, rejects


def reasons(rejects: Rejects) -> dict[str, str]:
    return {each.name: each.reason for each in rejects.first}


def tar_bytes(files: dict[str, bytes], form: int = tarfile.PAX_FORMAT, **options) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=form, **options) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return target.getvalue()


def zip_bytes(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return target.getvalue()


def raw_zip(names: dict[bytes, bytes], *, extra: Callable[[bytes], bytes] = lambda _: b"") -> bytes:
    """A zip whose names are bytes as they are, without the flag that they are UTF-8."""
    local, central = b"", b""
    for name, data in names.items():
        more, at = extra(name), len(local)
        sizes = struct.pack("<IIIHH", zlib.crc32(data), len(data), len(data), len(name), len(more))
        local += struct.pack("<IHHHHH", 0x04034B50, 20, 0, 0, 0, 0) + sizes + name + more + data
        entry = struct.pack("<IHHHHHH", 0x02014B50, 20, 20, 0, 0, 0, 0)
        central += entry + sizes + struct.pack("<HHHII", 0, 0, 0, 0, at) + name + more
    end = struct.pack(
        "<IHHHHIIH", 0x06054B50, 0, 0, len(names), len(names), len(central), len(local), 0
    )
    return local + central + end


def folder_of(path: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


PACKED = {
    "set.zip": zip_bytes(FILES),
    "stored.zip": zip_bytes(FILES, zipfile.ZIP_STORED),
    "bzip2.zip": zip_bytes(FILES, zipfile.ZIP_BZIP2),
    "lzma.zip": zip_bytes(FILES, zipfile.ZIP_LZMA),
    "self-extracting.exe": b"MZ" + bytes(1000) + zip_bytes(FILES),
    "called.tar": zip_bytes(FILES),
    "set.tar": tar_bytes(FILES),
    "gnu.tar": tar_bytes(FILES, tarfile.GNU_FORMAT),
    "ustar.tar": tar_bytes(FILES, tarfile.USTAR_FORMAT),
    "set.tar.gz": gzip.compress(tar_bytes(FILES)),
    "set.tgz": gzip.compress(tar_bytes(FILES)),
    "set.tar.bz2": bz2.compress(tar_bytes(FILES)),
    "set.tar.xz": lzma.compress(tar_bytes(FILES)),
    "set.tar.zst": zstd.compress(tar_bytes(FILES)),
    "two.tar.gz": gzip.compress(tar_bytes(FILES)[:700]) + gzip.compress(tar_bytes(FILES)[700:]),
    "download": gzip.compress(tar_bytes(FILES)),
    "dotted.tar": tar_bytes({f"./{name}": data for name, data in FILES.items()}),
    "windows.zip": raw_zip({k.replace("/", "\\").encode(): data for k, data in FILES.items()}),
}  # fmt: skip


@pytest.mark.parametrize("name", PACKED)
def test_every_archive_holds_what_its_folder_does(tmp_path, name):
    (tmp_path / name).write_bytes(PACKED[name])
    found, rejects = contents(tmp_path / name, tmp_path)
    assert (found, rejects.first) == (FILES, [])
    assert contents(folder_of(tmp_path / "folder", FILES))[0] == FILES


def test_nothing_is_left_of_an_archive_that_was_unpacked(tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(PACKED["set.tar.gz"])
    (tmp_path / "scratch").mkdir()
    contents(tmp_path / "a.tar.gz", tmp_path / "scratch")
    assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (PACKED["set.tar"][:700], "damaged or cut short"),
        (PACKED["set.tar"][:1500], "damaged or cut short"),
        (PACKED["set.tar"][:1024] + b"garbage" + PACKED["set.tar"][1031:], "damaged or cut short"),
        (b"no tar at all", "damaged or cut short"),
        (PACKED["set.tar.gz"][:-40], "damaged or cut short"),
        (PACKED["set.tar.bz2"][:-20], "damaged or cut short"),
        (PACKED["set.tar.xz"][:-30], "damaged or cut short"),
        (PACKED["set.tar.zst"][:-9], "damaged or cut short"),
        (gzip.compress(tar_bytes({"a.txt": bytes(50 << 20)})), "packed more than 200 to 1"),
    ],
    ids=["in a file", "in a header", "damaged", "no tar", "gz", "bz2", "xz", "zst", "bomb"],
)  # fmt: skip
def test_an_archive_that_is_cut_short_or_a_bomb_is_refused(tmp_path, data, says):
    (tmp_path / "set.tar").write_bytes(data)
    with pytest.raises(BadInput, match=rf"^set\.tar: .*{says}"):
        contents(tmp_path / "set.tar", tmp_path)


def test_members_of_a_tar_that_are_no_files_are_left_out(tmp_path):
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        kinds = {
            "soft.txt": tarfile.SYMTYPE,
            "pipe.txt": tarfile.FIFOTYPE,
            "dev.txt": tarfile.CHRTYPE,
        }
        for name, kind in kinds.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        for name, data in {
            "a.txt": b"a",
            "../evil.txt": b"e",
            "/abs.txt": b"e",
            "twice.txt": b"old",
        }.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for name, link in {"hard.txt": "a.txt", "lost.txt": "nowhere.txt"}.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.LNKTYPE, link
            archive.addfile(info)
        info = tarfile.TarInfo("twice.txt")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"new"))
    (tmp_path / "set.tar").write_bytes(target.getvalue())
    found, rejects = contents(tmp_path / "set.tar")
    assert found == {"a.txt": b"a", "hard.txt": b"a", "twice.txt": b"new"}
    said = reasons(rejects)
    assert all("a link or device" in said[name] for name in kinds)
    assert "leads out" in said["../evil.txt"]
    assert "leads out" in said["/abs.txt"]
    assert "cannot be unpacked" in said["lost.txt"]
    assert "newer file" in said["twice.txt"]


def test_entries_of_a_folder_that_are_no_files_are_left_out(tmp_path):
    folder = folder_of(tmp_path / "set", {"a.txt": b"a", "in/b.txt": b"b"})
    os.mkfifo(folder / "pipe.txt")
    (folder / "dangling.txt").symlink_to("nothing")
    (folder / "loop.txt").symlink_to("loop.txt")
    (folder / "linked").symlink_to(folder / "in")
    (folder / "up").symlink_to(tmp_path)
    (folder / "null.txt").symlink_to("/dev/null")
    (folder / "linked.txt").symlink_to(folder / "a.txt")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "socket.txt"))
        found, rejects = contents(folder)
    assert found == {"a.txt": b"a", "in/b.txt": b"b", "linked.txt": b"a"}
    said = reasons(rejects)
    assert "a pipe, socket or device" in said["pipe.txt"]
    assert "a pipe, socket or device" in said["socket.txt"]
    assert "a link to nothing, which is not there" in said["dangling.txt"]
    assert "cannot be read" in said["loop.txt"]
    assert "a link to a folder" in said["linked"]
    assert "a link to a folder" in said["up"]
    assert "device" in said["null.txt"]


def test_names_of_one_folder_that_differ_by_case_or_form_are_all_read(tmp_path):
    composed, parts = (unicodedata.normalize(form, "é.txt") for form in ("NFC", "NFD"))
    folder = folder_of(
        tmp_path / "set", {"a.txt": b"1", "A.txt": b"2", composed: b"3", parts: b"4"}
    )
    with open_source(folder) as source:
        assert sorted(member.name for member in source.members()) == [
            "A.txt",
            "a.txt",
            "é.txt",
            "é.txt",
        ]


def test_names_in_a_folder_that_are_not_utf8_are_read(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    name = os.fsencode(folder) + b"/ni\xa4o.txt"
    try:
        Path(os.fsdecode(name)).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes names in UTF-8 alone")
    assert contents(folder)[0] == {"niño.txt": b"x"}


def test_system_files_are_ignored_and_told(tmp_path):
    files = {
        "a.txt": b"a", ".DS_Store": b"x", "__MACOSX/._a.txt": b"x", "Thumbs.db": b"x",
        "sub/desktop.ini": b"x",
    }  # fmt: skip
    (tmp_path / "set.zip").write_bytes(zip_bytes(files))
    for path in (folder_of(tmp_path / "set", files), tmp_path / "set.zip"):
        found, rejects = contents(path)
        assert list(found) == ["a.txt"]
        assert rejects.count == 0
        assert {".DS_Store", "Thumbs.db", "sub/desktop.ini"} <= rejects.ignored


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({"été/1.txt".encode(): b"x"}, "été/1.txt"),
        ({unicodedata.normalize("NFD", "été/1.txt").encode(): b"x"}, "été/1.txt"),
        ({"犬/猫.txt".encode("cp932"): b"x"}, "犬/猫.txt"),
        ({"été/1.txt".encode("cp437"): b"x"}, "été/1.txt"),
        ({"训练/狗.txt".encode("gb18030"): b"x"}, "训练/狗.txt"),
    ],
)
def test_names_of_a_zip_without_a_flag_are_decoded(tmp_path, names, expected):
    (tmp_path / "set.zip").write_bytes(raw_zip(names))
    assert contents(tmp_path / "set.zip")[0] == {expected: b"x"}


@pytest.mark.parametrize(("method", "says"), [(9, "Deflate64"), (98, "PPMd"), (77, "method 77")])
def test_a_member_of_a_zip_of_another_compression_is_left_out_by_its_name(tmp_path, method, says):
    data = bytearray(zip_bytes({"a.txt": b"a"}))
    for mark, place in ((b"PK\3\4", 8), (b"PK\1\2", 10)):
        data[data.index(mark) + place] = method
    (tmp_path / "a.zip").write_bytes(data)
    found, rejects = contents(tmp_path / "a.zip")
    assert found == {}
    assert f"compressed by {says}, which is not read" in reasons(rejects)["a.txt"]


def test_a_member_of_a_zip_without_a_name_is_left_out(tmp_path):
    nameless = zip_bytes({"a.txt": b"a", "?": b"b"}).replace(b"?", b"\0")
    (tmp_path / "a.zip").write_bytes(nameless)
    found, rejects = contents(tmp_path / "a.zip")
    assert (found, reasons(rejects)) == ({"a.txt": b"a"}, {"": "it has no name"})


def test_the_unicode_name_that_a_zip_holds_beside_the_other_counts(tmp_path):
    def extra(name: bytes) -> bytes:
        body = b"\1" + struct.pack("<I", zlib.crc32(name)) + "猫.txt".encode()
        return struct.pack("<HH", 0x7075, len(body)) + body

    (tmp_path / "set.zip").write_bytes(raw_zip({b"?\xff.txt": b"x"}, extra=extra))
    assert contents(tmp_path / "set.zip")[0] == {"猫.txt": b"x"}


def test_of_two_members_of_one_name_the_last_counts(tmp_path):
    data = raw_zip({b"a.txt": b"old", b"b.txt": b"new"}).replace(b"b.txt", b"a.txt")
    (tmp_path / "set.zip").write_bytes(data)
    found, rejects = contents(tmp_path / "set.zip")
    assert found == {"a.txt": b"new"}
    assert "newer file of this name" in reasons(rejects)["a.txt"]


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
def test_an_empty_archive_has_no_members(tmp_path, name):
    empty = {
        "a.zip": zip_bytes({}),
        "a.tar": tar_bytes({}),
        "a.tar.gz": gzip.compress(tar_bytes({})),
    }
    (tmp_path / name).write_bytes(empty[name])
    assert contents(tmp_path / name, tmp_path)[0] == {}


def test_large_members_are_read_without_being_held_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("worker.source_files.zips.MAX_MEMBER_BYTES", 100)
    monkeypatch.setattr("worker.source_files.tars.MAX_MEMBER_BYTES", 100)
    for name in ("set.zip", "set.tar"):
        (tmp_path / name).write_bytes(PACKED[name])
        with open_source(tmp_path / name) as source:
            for member in source.members():
                with member.open(limits.MAX_MEMBER_BYTES) as file:
                    assert file.read() == FILES[member.name]


def test_what_is_missing_is_named(tmp_path):
    (tmp_path / "link").symlink_to("nothing")
    with pytest.raises(BadInput, match="link cannot be read: it is a link to nothing, which"):
        contents(tmp_path / "link")
