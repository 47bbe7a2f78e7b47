"""Mutated folders, archives, tables, sounds, music and pictures: an answer in words, in time."""

import csv
import io
import json
import tarfile
import zipfile
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from db.errors import GenmillError
from tests import fuzzing
from tests.fuzzing import mutated, within_limits
from worker.ingest.ingest import ingest
from worker.media.samples.wav import write_wav
from worker.music import midi, notes

TESTS = 29  # that share the examples
fuzz = fuzzing.fuzz(TESTS, few=350)


def picture(form: str) -> bytes:
    target = io.BytesIO()
    pixels = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)
    Image.fromarray(pixels).save(target, form)
    return target.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return target.getvalue()


def tarred(files: dict[str, bytes], mode: str) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode=mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return target.getvalue()


def table(rows: list[list[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


ROWS = [
    {"text": "a text"},
    {"prompt": "p", "completion": "c"},
    {"messages": [{"role": "user", "content": "x"}]},
    {"instruction": "i", "input": "", "output": "o"},
    {"conversations": [{"from": "human", "value": "x"}]},
]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


@cache
def seeds() -> dict[str, bytes]:
    """A good file of each kind, by its name."""
    sound = write_wav(np.arange(400, dtype=np.int16), 8000, {"ISFT": "x", "ICMT": "{}"})
    tune = midi.write_midi(notes.read("t100 60:4 62:2 r:1 60+64+67:8"))
    mixed = {"train/été/1.txt": b"one", "test/b/2.txt": b"two" * 50, ".DS_Store": b"x"}
    return {
        "a.png": picture("PNG"), "a.jpg": picture("JPEG"), "a.gif": picture("GIF"),
        "a.bmp": picture("BMP"), "a.webp": picture("WEBP"), "a.wav": sound, "a.mid": tune,
        "a.txt": "Zażółć gęślą jaźń 😀".encode(), "a.jsonl": LINES,
        "a.json": json.dumps(ROWS).encode(),
        "a.zip": zipped(mixed), "a.tar": tarred(mixed, "w"), "a.tar.gz": tarred(mixed, "w:gz"),
        "a-idx3-ubyte": b"\0\0\x08\x03\0\0\0\3\0\0\0\4\0\0\0\4" + bytes(48),
    }  # fmt: skip


def check(files: dict[str, bytes], *, single: bool) -> None:
    """Add files as a dataset: any answer will do that is no traceback, hang or flood of memory."""
    with TemporaryDirectory() as folder:
        source = Path(folder) / "set"
        source.mkdir()
        for name, data in files.items():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes(data)
        with within_limits(), suppress(GenmillError):
            ingest(source / name if single else source, Path(folder) / "out")


@pytest.mark.parametrize("name", seeds())
@fuzz
@given(data=st.data())
def test_a_mutated_file_gets_an_answer(name, data):
    check({name: data.draw(mutated(seeds()[name]))}, single=True)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.wav", "a.mid", "a.txt", "a.zip"])
@fuzz
@given(data=st.data())
def test_a_mutated_file_in_an_archive_gets_an_answer(name, data):
    files = {name: data.draw(mutated(seeds()[name])), f"b{name}": seeds()[name]}
    packed = data.draw(st.sampled_from(["zip", "tar"]))
    archive = zipped(files) if packed == "zip" else tarred(files, "w")
    check({f"set.{packed}": archive}, single=True)


TABLES = {
    "metadata.jsonl": b"".join(
        b'{"file_name": "%s.png", "text": "one"}\n' % name for name in (b"a", b"b")
    ),
    "metadata.csv": table(
        [["file_name", "text", "label"], ["a.png", "1", "x"], ["b.png", "2", "y"]]
    ),
    "labels.csv": table([["id", "label"], *[["a", "x"], ["b", "y"]] * 2]),
    "captions.json": json.dumps(
        {
            "images": [{"id": 1, "file_name": "a.png"}],
            "annotations": [{"image_id": 1, "caption": "c"}],
        }
    ).encode(),
    "a.txt": b"a caption",
}


@pytest.mark.parametrize("name", TABLES)
@fuzz
@given(data=st.data())
def test_a_mutated_table_beside_pictures_gets_an_answer(name, data):
    pictures = {"a.png": seeds()["a.png"], "b.png": seeds()["a.png"]}
    check(pictures | {name: data.draw(mutated(TABLES[name]))}, single=False)


PARTS = ["train", "test", "val", "a", "é", "e\u0301", "..", ".", "", "\\", "C:", "犬", "\x01"]
NAMES = st.lists(st.sampled_from(PARTS), min_size=1, max_size=5).map("/".join)


@fuzz
@given(st.dictionaries(NAMES.map(lambda name: f"{name}.txt"), st.binary(max_size=30), max_size=6))
def test_an_archive_of_any_names_gets_an_answer(files):
    for name, archive in {"a.zip": zipped(files), "a.tar": tarred(files, "w")}.items():
        check({name: archive}, single=True)


KEYS = [
    *("text", "prompt", "completion", "messages", "role", "content", "from", "value"),
    *("instruction", "input", "output", "conversations", "file_name", "images"),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_subnormal=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)
    ),
    max_leaves=12,
)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "metadata.jsonl"])
@fuzz
@given(rows=st.lists(JSON, max_size=4))
def test_rows_of_any_json_get_an_answer(name, rows):
    data = json.dumps(rows) if name == "rows.json" else "\n".join(map(json.dumps, rows))
    check({"a.png": seeds()["a.png"], name: data.encode()}, single=name != "metadata.jsonl")
