"""Hostile files cost little time and memory, and each has an item that says why it was not read."""

import struct
import tarfile
import tracemalloc
import zlib
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from scheduler.results import pieces
from scheduler.results.pieces import MAX_PARTS, read_items
from worker.media.samples.containers import MAX_RECORD_BYTES
from worker.media.samples.png_chunks import SIGNATURE, chunk


def png(count: int) -> bytes:
    """A PNG file with this many empty chunks of a wrong checksum."""
    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b"\0\0"))
    bad = b"\0\0\0\0abCd\0\0\0\0" * count
    return SIGNATURE + chunk(b"IHDR", header) + bad + pixels + chunk(b"IEND", b"")


def wav(count: int) -> bytes:
    """A WAV file with this many empty chunks."""
    form = b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 16000, 2, 16)
    body = b"WAVE" + form + b"abcd\0\0\0\0" * count + b"data\0\0\0\0"
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize("make", [png, wav])
@pytest.mark.parametrize("inside", [False, True])
def test_a_file_of_too_many_parts_is_not_read(tmp_path: Path, make, inside: bool) -> None:
    path = tmp_path / f"a.{make.__name__}"
    path.write_bytes(make(MAX_PARTS))
    (tmp_path / "b").write_bytes(make(MAX_PARTS - 9))
    if inside:
        with tarfile.open(tmp_path / "a.tar", "w") as tar:
            tar.add(path, "a.png")
            tar.add(tmp_path / "b", "b.png")
        items = [*read_items(tmp_path / "a.tar")]
    else:
        items = [*read_items(path), *read_items(tmp_path / "b")]
    assert [each.refused for each in items] == ["it has over 40,000 parts", ""]


def test_a_line_longer_than_any_sample_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with path.open("wb") as file:
        file.write(b'{"text": "first"}\n')
        file.write(b"a" * (3 * MAX_RECORD_BYTES) + b"\n")
        file.write(b'{"text": "last"}')
    tracemalloc.start()
    items = [*read_items(path)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [(each.place, each.data, each.refused) for each in items] == [
        ("line 1", b'{"text": "first"}', ""),
        ("line 2", b"", "the line is over 67,108,864 bytes"),
        ("line 3", b'{"text": "last"}', ""),
    ]
    assert peak < 3 * MAX_RECORD_BYTES


@pytest.mark.parametrize("ending", [b"\n", b"", b"\nb"])
@pytest.mark.parametrize("size", [7, 8, 9, 15, 16, 17])
def test_lines_about_as_long_as_the_limit(tmp_path, monkeypatch, size, ending) -> None:
    monkeypatch.setattr(pieces, "MAX_RECORD_BYTES", 8)
    (tmp_path / "a.jsonl").write_bytes(b"a" * size + ending)
    items = [*read_items(tmp_path / "a.jsonl")]
    assert len(items) == 1 + (ending == b"\nb")
    assert bool(items[0].refused) == (size >= 8)
    assert items[0].data == (b"" if size >= 8 else b"a" * size)


def test_a_sparse_file_in_a_tar_is_not_read(tmp_path: Path) -> None:
    header = bytearray(tarfile.TarInfo("a.png").tobuf(tarfile.GNU_FORMAT))
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[386:410] = b"00000000000\0" * 2
    header[483:495] = b"%011o\0" % (1 << 32)  # its size, of which nothing is stored
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "a.tar").write_bytes(bytes(header) * 50 + bytes(1024))
    items = [*read_items(tmp_path / "a.tar")]
    assert {(each.data, each.refused) for each in items} == {(b"", "it is a sparse file")}


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_a_tar_of_headers_without_end_is_read_to_where_it_can_be(tmp_path: Path, kind) -> None:
    sample = tarfile.TarInfo("a.png").tobuf(tarfile.GNU_FORMAT)
    header = tarfile.TarInfo("a")
    header.type, header.size = kind, 11
    text = b"11 path=ab\n".ljust(512, b"\0")
    headers = (header.tobuf(tarfile.GNU_FORMAT) + text) * 3000
    (tmp_path / "a.tar").write_bytes(sample + headers + sample + bytes(1024))
    items = [*read_items(tmp_path / "a.tar")]
    assert [each.place for each in items] == ["a.png", "the rest"]
    assert items[1].refused == "it cannot be read"


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        ("a.tar", b"no tar", "it cannot be read"),
        ("a.tar", bytes(10240), "nothing is in it"),
        ("a.jsonl", b"", "nothing is in it"),
        ("a.parquet", b"PAR1 and no more", "it cannot be read"),
    ],
)
def test_a_file_without_samples_is_not_passed_over(tmp_path: Path, name, data, why) -> None:
    (tmp_path / name).write_bytes(data)
    assert [each.refused for each in read_items(tmp_path / name)] == [why]


def test_a_table_that_repeats_a_large_value_is_read_within_bounds(tmp_path: Path) -> None:
    kind = pyarrow.struct([("bytes", pyarrow.binary())])
    column = pyarrow.array([{"bytes": b"a" * (4 << 20)}] * 100, kind)
    table = pyarrow.table({"weights_sha256": ["ab" * 32] * 100, "image": column})
    parquet.write_table(table, tmp_path / "a.parquet", compression="zstd")
    assert (tmp_path / "a.parquet").stat().st_size < 10_000
    del table, column
    items, held = [], 0
    for item in read_items(tmp_path / "a.parquet"):
        items.append(item._replace(data=b""))
        held = max(held, pyarrow.total_allocated_bytes())
    assert held < 200 << 20
    assert items[-1].refused == "the rows up to here are 100 times as large as their file"
    assert (len(items), items[0].refused) == (64, "")
