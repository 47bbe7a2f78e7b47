"""Texts in any language, turned into dataset versions."""

import json
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from db.errors import BadInput
from worker import files
from worker.cleaning.recipe import Recipe
from worker.data.dataset import LocalDataset
from worker.ingest.ingest import Ingested, ingest
from worker.media.sources import documents

CHINESE = "床前明月光。疑是地上霜。举头望明月。低头思故乡。\n" * 40


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


def taken(path: Path, tmp_path: Path, **options) -> tuple[Ingested, LocalDataset]:
    return ingest(path, tmp_path / "out", Recipe(**options)), LocalDataset(tmp_path / "out")


def split_texts(dataset: LocalDataset) -> list[str]:
    return ["".join(row["text"] for row in dataset.documents(split)) for split in range(3)]


@pytest.mark.parametrize(
    "text",
    [CHINESE, "Zażółć gęślą jaźń 😀 مرحبا שלום नमस्ते\n" * 30, "line\r\nline\rline\n" * 30],
    ids=["chinese", "many", "line ends"],
)
def test_a_text_is_cut_in_order_and_loses_no_character(source, tmp_path, text):
    (source / "text.txt").write_bytes(text.encode())
    result, dataset = taken(source / "text.txt", tmp_path)
    parts = split_texts(dataset)
    assert "".join(parts) == text
    assert len(parts[0]) == len(text) * 90 // 100
    assert abs(len(parts[1]) - len(parts[2])) <= 1
    assert result.manifest["counts"] == {"train": 1, "validation": 1, "test": 1}


def test_characters_are_whole_wherever_the_bytes_are_cut(source, tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "CHUNK", 7)
    (source / "text.txt").write_text(CHINESE, encoding="utf-8")
    assert "".join(split_texts(taken(source / "text.txt", tmp_path)[1])) == CHINESE


def test_a_long_text_becomes_several_rows_of_its_split(source, tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "PIECE", 100)
    (source / "text.txt").write_text(CHINESE, encoding="utf-8")
    result, dataset = taken(source / "text.txt", tmp_path)
    assert max(len(row["text"]) for row in dataset.documents(0)) == 100
    assert "".join(split_texts(dataset)) == CHINESE
    assert result.manifest["counts"]["train"] == sum(1 for _ in dataset.documents(0))


def test_a_byte_order_mark_is_no_text(source, tmp_path):
    (source / "text.txt").write_bytes(b"\xef\xbb\xbfhello world")
    assert "".join(split_texts(taken(source / "text.txt", tmp_path)[1])) == "hello world"


def test_a_byte_order_mark_is_no_part_of_a_row(source, tmp_path):
    (source / "rows.jsonl").write_bytes(b'\xef\xbb\xbf{"text":"hello"}\r\n\r\n{"text":"world"}')
    result, dataset = taken(source / "rows.jsonl", tmp_path)
    assert result.manifest["rejected"] == 0
    assert sorted(split_texts(dataset)) == ["", "hello", "world"]


@pytest.mark.parametrize("chunk", [3, 1 << 20])
@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        ("héllo".encode("latin-1"), r"byte 0xe9 at offset 1; .* iconv -f WINDOWS-1252 -t UTF-8"),
        (b"good text \xff", r"byte 0xff at offset 10;"),
        ("床前".encode() + b"\xe5\xba", r"byte 0xe5 at offset 6;"),
        ("床前明月光".encode("gb18030"), r"byte 0xb4 at offset 0; .* GB18030"),
        ("hello".encode("utf-16"), r"byte 0xff at offset 0; .* iconv -f UTF-16"),
    ],
)
def test_text_that_is_not_utf8_is_refused_at_its_first_bad_byte(
    source, tmp_path, monkeypatch, chunk, data, complaint
):
    monkeypatch.setattr(documents, "CHUNK", chunk)
    (source / "text.txt").write_bytes(data)
    with pytest.raises(BadInput, match=rf"text\.txt: not UTF-8: {complaint}"):
        ingest(source / "text.txt", tmp_path / "out")


def test_an_empty_text_is_refused(source, tmp_path):
    (source / "text.txt").write_bytes(b"")
    with pytest.raises(BadInput, match="the file is empty"):
        ingest(source / "text.txt", tmp_path / "out")


def test_any_file_can_be_called_text(source, tmp_path):
    (source / "notes.md").write_text("# Notes")
    result, _ = taken(source / "notes.md", tmp_path, kind="text")
    assert result.manifest["kind"] == "text"


def test_text_is_not_taken_for_images(source, tmp_path):
    (source / "text.txt").write_text("hello")
    with pytest.raises(BadInput, match="is text data, and kind 'image' was asked for"):
        ingest(source / "text.txt", tmp_path / "out", Recipe(kind="image"))


@pytest.mark.parametrize("packed", [False, True])
def test_a_folder_of_texts_is_one_document_a_file(source, tmp_path, packed):
    for number in range(40):
        (source / f"{number}.txt").write_text(f"document {number % 20}\n")
    (source / "bad.txt").write_bytes(b"\xff\xfe")
    (source / "empty.txt").write_bytes(b"")
    (source / "notes.doc").write_bytes(b"x")
    path = source
    if packed:
        path = tmp_path / "source.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for each in source.iterdir():
                archive.write(each, each.name)
    result, dataset = taken(path, tmp_path)
    rows = [[row["text"] for row in dataset.documents(split)] for split in range(3)]
    assert {reject.name: reject.reason.partition(";")[0] for reject in result.rejects} == {
        "bad.txt": "not UTF-8: byte 0xff at offset 0",
        "empty.txt": "the file is empty",
        "notes.doc": "its name ends in none of .txt (a document)",
    }
    assert sum(len(each) for each in rows) == 40
    assert not set(rows[0]) & set(rows[1])  # equal documents stay together
    assert rows[1]
    assert {reject.name for reject in result.rejects} == {"bad.txt", "empty.txt", "notes.doc"}


def test_rows_of_jsonl_keep_what_training_reads(source, tmp_path):
    rows = [
        {"text": "你好"},
        {"prompt": "a", "completion": "b", "id": 7},
        {
            "messages": [
                {"role": "user", "content": "q", "name": "x", "id": 7},
                {"role": "assistant", "content": "r"},
            ]
        },
    ]
    lines = "\n\n".join(json.dumps(row) for row in rows)
    (source / "rows.jsonl").write_text(lines)
    _, dataset = taken(source / "rows.jsonl", tmp_path, split=(1, 0, 0))
    assert list(dataset.documents(0)) == [
        {"split": 0, "text": "你好"},
        {"split": 0, "prompt": "a", "completion": "b"},
        {
            "split": 0,
            "messages": [
                {"role": "user", "content": "q", "name": "x"},
                {"role": "assistant", "content": "r"},
            ],
        },
    ]


def test_a_bad_line_is_reported_by_its_number(source, tmp_path):
    lines = [
        b'{"text": "good"}',
        b"{broken",
        b'{"text": ""}',
        b"[1, 2]",
        b'{"text": "\\ud800"}',
        b'{"text": "\xff"}',
        b'{"messages": [{"role": "king", "content": "x"}]}',
        b"[" * 100_000,
        b'{"messages": [{"role": ["user"], "content": "x"}]}',
        b'{"conversations": [{"from": {}, "value": "x"}, 7]}',
        b'{"text": "also good"}',
    ]
    (source / "rows.jsonl").write_bytes(b"\n".join(lines))
    result, dataset = taken(source / "rows.jsonl", tmp_path)
    assert [reject.name for reject in result.rejects] == [f"line {n}" for n in range(2, 11)]
    reasons = [reject.reason for reject in result.rejects]
    for reason, words in zip(
        reasons,
        [
            "not JSON",
            "holds none of",
            "holds none of",
            "surrogate",
            "byte 0xff at",
            "role",
            "not JSON",
            "role",
            "role",
        ],
        strict=True,
    ):
        assert words in reason
    assert sorted("".join(split_texts(dataset)).split("good")) == ["", "", "also "]


def test_a_line_that_is_too_long_is_left_out_whole(source, tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "MAX_LINE", 50)
    lines = [json.dumps({"text": "x" * size}) for size in (10, 500, 20)]
    (source / "rows.jsonl").write_text("\n".join(lines))
    result, dataset = taken(source / "rows.jsonl", tmp_path)
    assert [(each.name, each.reason) for each in result.rejects] == [
        ("line 2", "longer than 50 bytes")
    ]
    assert len("".join(split_texts(dataset))) == 30


def test_jsonl_without_a_good_line_is_refused_with_the_first_reason(source, tmp_path):
    (source / "rows.jsonl").write_text("nonsense\n")
    with pytest.raises(
        BadInput, match=r"nothing usable in it, 1 left out \(the first: line 1: not JSON"
    ):
        ingest(source / "rows.jsonl", tmp_path / "out")


def test_memory_does_not_grow_with_the_text(source, tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "PIECE", 1 << 16)
    monkeypatch.setattr(documents, "CHUNK", 1 << 16)
    monkeypatch.setattr(files, "CHUNK", 1 << 16)

    def peak(size: int) -> int:
        (source / "text.txt").write_bytes(b"some words\n" * (size // 11))
        tracemalloc.start()
        ingest(source / "text.txt", tmp_path / str(size))
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    assert peak(8 << 20) - peak(2 << 20) < 1 << 18


def test_tinyshakespeare_is_cut_where_a_plain_cut_would(shared_data, tmp_path):
    text = (shared_data / "tinyshakespeare.txt").read_text(encoding="utf-8")
    _, dataset = taken(shared_data / "tinyshakespeare.txt", tmp_path, split=(90, 10, 0))
    assert split_texts(dataset) == [text[: int(0.9 * len(text))], text[int(0.9 * len(text)) :], ""]
