"""Data sets as people pack them: each is taken as it was meant, or says what to do."""

import csv
import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as arrow
import pytest
from PIL import Image
from pyarrow import parquet

from db.errors import BadInput
from worker.cleaning.recipe import Recipe
from worker.data.dataset import TEST, TRAIN, VALIDATION, LocalDataset
from worker.ingest.ingest import Ingested, ingest
from worker.media.samples.wav import write_wav
from worker.media.sources.text_rows import known_row
from worker.music import midi, notes


def picture(shade: int, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (32, 32), shade).save(
        buffer, form, **({"quality": 100} if form == "JPEG" else {})
    )
    return buffer.getvalue()


def table(rows: list[dict[str, Any]], delimiter: str = ",") -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def written(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def taken(tmp_path: Path, files: dict[str, bytes]) -> tuple[Ingested, LocalDataset]:
    source = written(tmp_path / "set", files)
    return ingest(source, tmp_path / "out", Recipe(split=(100, 0, 0))), LocalDataset(
        tmp_path / "out"
    )


def labelled(dataset: LocalDataset) -> dict[int, str]:
    """The label of each picture, by its shade."""
    shades = dataset.array("images")[:, 0, 0, 0].tolist()
    names = dataset.manifest["labels"]
    return {shade: names[n] for shade, n in zip(shades, dataset.array("labels"), strict=True)}


def captioned(dataset: LocalDataset) -> dict[int, str]:
    shades = dataset.array("images")[:, 0, 0, 0].tolist()
    return dict(zip(shades, dataset.captions(), strict=True))


def splits(dataset: LocalDataset) -> dict[int, int]:
    shades = dataset.array("images")[:, 0, 0, 0].tolist()
    return dict(zip(shades, dataset.array("split").tolist(), strict=True))


def test_an_imagenet_style_tree(tmp_path):
    files = {
        f"imagenet/{split}/{synset}/{synset}_{n}.JPEG": picture(10 * n + offset, "JPEG")
        for split, count, offset in (("train", 4, 0), ("val", 2, 100))
        for synset in ("n01440764", "n02102040")
        for n in range(count)
    }
    result, dataset = taken(
        tmp_path, files | {"imagenet/LOC_synset_mapping.txt": b"n01440764 tench"}
    )
    assert result.manifest["labels"] == ["n01440764", "n02102040"]
    assert result.manifest["counts"] == {"train": 8, "validation": 4, "test": 0}
    assert result.reading["labels"] == "n01440764, n02102040, from the names of folders"
    assert result.reading["splits"] == "from the names of folders"
    assert dataset.array("labels").tolist().count(0) == 6


@pytest.mark.parametrize("column", ["id", "image_id", "Image", "file", "anything"])
@pytest.mark.parametrize("suffix", ["", ".png"])
def test_a_csv_of_labels_as_on_kaggle(tmp_path, column, suffix):
    breeds = ["beagle", "pug", "boxer", "pug", "beagle", "boxer"]
    rows = [{column: f"{n}{suffix}", "breed": breed} for n, breed in enumerate(breeds)]
    answers = [{column: f"9{n}{suffix}", "breed": "beagle"} for n in range(2)]
    files = {f"train/{n}.png": picture(n) for n in range(6)}
    files |= {f"test/9{n}.png": picture(90 + n) for n in range(2)}
    files |= {"labels.csv": table(rows), "sample_submission.csv": table(answers)}
    result, dataset = taken(tmp_path, files)
    assert labelled(dataset) == dict(enumerate(breeds))
    assert result.reading["labels"].startswith("beagle, boxer, pug, from labels.csv (columns")
    assert {each.name for each in result.rejects} == {
        "test/90.png", "test/91.png", "sample_submission.csv",
    }  # fmt: skip


def test_a_csv_of_paths_labels_and_splits(tmp_path):
    rows = [
        {
            "class id": n % 2,
            "filepaths": f"{split}/{n}.png",
            "labels": "kn"[n % 2],
            "data set": split,
        }
        for n, split in enumerate(["train", "train", "valid", "test"])
    ]
    files = {row["filepaths"]: picture(n) for n, row in enumerate(rows)}
    result, dataset = taken(tmp_path, files | {"birds.csv": table(rows)})
    assert labelled(dataset) == {0: "k", 1: "n", 2: "k", 3: "n"}
    assert splits(dataset) == {0: TRAIN, 1: TRAIN, 2: VALIDATION, 3: TEST}
    assert "from birds.csv" in result.reading["splits"]


def test_kohyas_folder_of_pictures_and_captions(tmp_path):
    files = {f"10_shades/{n}.png": picture(n) for n in range(4)}
    files |= {f"10_shades/{n}.txt": f"shade {n}, grey, flat\n".encode() for n in range(3)}
    result, dataset = taken(tmp_path, files | {"10_shades/3.caption": "shade 3, ñ".encode()})
    assert captioned(dataset) == {
        n: f"shade {n}, {'grey, flat' if n < 3 else 'ñ'}" for n in range(4)
    }
    assert (result.manifest["labels"], result.rejects) == ([], [])
    assert result.reading["captions"] == "from a text file beside each picture"


def parquet_of(rows: list[dict[str, Any]]) -> bytes:
    target = io.BytesIO()
    parquet.write_table(arrow.Table.from_pylist(rows), target)
    return target.getvalue()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("metadata.json", {"a.png": "one", "b.png": "two"}),
        ("meta_cap.json", {"a": {"caption": "one"}, "b": {"caption": "two"}}),
        (
            "captions.json",
            [{"image": "a.png", "caption": "one"}, {"image": "b.png", "caption": "two"}],
        ),
        ("captions.txt", "image,caption\na.png,one\na.png,again\nb.png,two\n"),
        ("captions.csv", "a.png,one\nb.png,two\n"),
        ("captions.tsv", "file\tdescription\nA.PNG\tone\nb.jpg\ttwo\n"),
        ("metadata.csv", "file_name;text\na.png;one\nb.png;two\n"),
        ("captions.csv", "image|caption\na.png|one\nb.png|two\n"),
    ],
)
def test_captions_in_tables_of_other_forms(tmp_path, name, data):
    data = data if isinstance(data, str) else json.dumps(data)
    files = {"set/a.png": picture(1), "set/b.png": picture(2), f"set/{name}": data.encode()}
    _, dataset = taken(tmp_path, files)
    assert captioned(dataset) == {1: "one", 2: "two"}


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("metadata.jsonl", b"", r"metadata\.jsonl: no caption or label"),
        ("metadata.csv", "file_name,text\na.png,ñ\n".encode("latin-1"), "not UTF-8.*WINDOWS-1252"),
        ("metadata.csv", b"file_name,text\na.png,\n", r'has no "text"'),
        ("metadata.parquet", b"PAR1 and no more", r"metadata\.parquet: not a readable Parquet"),
        (
            "captions.txt",
            b"image,caption\nz.png,one\n",
            r"captions\.txt: a table that names no file",
        ),
        ("captions.json", b'{"annotations": [', r"captions\.json: not JSON"),
        ("a.txt", b"\xff\xfe", r"a\.txt: no caption .* not UTF-8"),
        ("a.txt", b"  \n", r"a\.txt: no caption .* empty"),
    ],
)
def test_captions_that_cannot_be_read_are_an_error_that_names_their_file(
    tmp_path, name, data, says
):
    with pytest.raises(BadInput, match=says) as caught:
        taken(tmp_path, {"a.png": picture(1), name: data})
    assert name in str(caught.value)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("labels.txt", b"cat\ndog\n"),
        ("classes.csv", b"ClassId,Name\n0,cat\n1,dog\n"),
        ("a.txt", b"0 0.5 0.5 0.25 0.25\n1 0.1 0.1 0.2 1e-3\n"),
        ("README.txt", b"About these pictures."),
        ("a.json", b'{"prompt": "x", "seed": 7}'),
        ("sums.csv", b"file,md5\na.png,d41d8cd98f00b204e9800998ecf8427e\n"),
        ("sample_submission.csv", b"id,label\na,cat\n"),
    ],
    ids=["names", "numbers", "boxes", "a note", "a record of a sample", "sums", "an answer"],
)
def test_other_files_beside_pictures_are_left_out_and_no_captions(tmp_path, name, data):
    result, dataset = taken(tmp_path, {"a.png": picture(1), name: data})
    assert [each.name for each in result.rejects] == [name]
    assert list(dataset.captions()) == []


HF_TABLES = {
    "metadata.jsonl": lines,
    "metadata.csv": table,
    "metadata.parquet": parquet_of,
}


@pytest.mark.parametrize("column", ["text", "caption", "prompt"])
@pytest.mark.parametrize("name", HF_TABLES)
def test_an_image_folder_of_hugging_face_with_splits(tmp_path, name, column):
    files = {}
    for split, count, offset in (("train", 4, 0), ("validation", 2, 100), ("test", 2, 200)):
        rows = [{"file_name": f"{n}.png", column: f"{split} {n}", "extra": n} for n in range(count)]
        files |= {f"{split}/{n}.png": picture(offset + n) for n in range(count)}
        files[f"{split}/{name}"] = HF_TABLES[name](rows)
    result, dataset = taken(tmp_path, files)
    assert captioned(dataset)[101] == "validation 1"
    assert result.manifest["counts"] == {"train": 4, "validation": 2, "test": 2}
    assert f"train/{name} (columns file_name, {column})" in result.reading["captions"]


def test_labels_in_the_metadata_of_hugging_face(tmp_path):
    rows = [{"file_name": f"{n}.png", "label": n % 2} for n in range(4)]
    files = {f"{n}.png": picture(n) for n in range(4)}
    _, dataset = taken(tmp_path, files | {"metadata.jsonl": lines(rows)})
    assert labelled(dataset) == {0: "0", 1: "1", 2: "0", 3: "1"}


def coco(names: dict[int, str], **more: Any) -> bytes:
    return json.dumps({
        "info": {"year": 2017}, "licenses": [],
        "images": [{"id": key, "file_name": name, "height": 32} for key, name in names.items()],
        "annotations": [
            {"image_id": key, "id": 10 * key + n, "caption": f"picture {key}, told {n} times"}
            for key in names for n in range(5)
        ],
    } | more).encode()  # fmt: skip


def test_captions_of_coco(tmp_path):
    train, val = ({n: f"{n:012d}.jpg" for n in range(*span)} for span in ((1, 5), (5, 7)))
    files = {f"train2017/{name}": picture(n, "JPEG") for n, name in train.items()}
    files |= {f"val2017/{name}": picture(n, "JPEG") for n, name in val.items()}
    files["annotations/captions_train2017.json"] = coco(train)
    files["annotations/captions_val2017.json"] = coco(val)
    files["annotations/instances_val2017.json"] = coco(val, annotations=[{"bbox": [1, 2, 3, 4]}])
    result, dataset = taken(tmp_path, files)
    assert captioned(dataset) == {n: f"picture {n}, told 0 times" for n in range(1, 7)}
    assert result.manifest["counts"] == {"train": 4, "validation": 2, "test": 0}
    (reject,) = result.rejects
    assert reject.name == "annotations/instances_val2017.json"
    assert "COCO annotations without captions" in reject.reason


def sound(number: int) -> bytes:
    return write_wav(np.arange(100, dtype=np.int16) * number, 22_050, {})


def test_ljspeech(tmp_path):
    names = [f"LJ001-{n:04d}" for n in range(1, 5)]
    files = {f"LJSpeech-1.1/wavs/{name}.wav": sound(n) for n, name in enumerate(names, start=1)}
    rows = "\n".join(f'{name}|He said "so, {name}|He said "so, {name}' for name in names)
    files |= {"LJSpeech-1.1/metadata.csv": rows.encode(), "LJSpeech-1.1/README": b"about"}
    result, _ = taken(tmp_path, files)
    assert (result.manifest["kind"], sum(result.manifest["counts"].values())) == ("audio", 4)
    assert result.manifest["labels"] == []
    said = {each.name: each.reason for each in result.rejects}
    assert "its texts are not used: sounds have labels only" in said["LJSpeech-1.1/metadata.csv"]


def test_environmental_sounds_with_a_table_of_categories(tmp_path):
    rows = [
        {
            "filename": f"1-{n}-A-0.wav",
            "fold": 1,
            "target": n % 2,
            "category": ["dog", "rain"][n % 2],
        }
        for n in range(4)
    ]
    files = {f"audio/{row['filename']}": sound(n + 1) for n, row in enumerate(rows)}
    result, dataset = taken(tmp_path, files | {"meta/esc50.csv": table(rows)})
    assert result.manifest["labels"] == ["dog", "rain"]
    assert dataset.array("labels").tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("packed", ["folder", "tar.gz"])
def test_a_tree_of_midi_as_the_lakh_set(tmp_path, packed):
    tunes = {f"lmd_full/{n:x}/{n:032x}.mid": f"t120 {60 + n}:4 62:4" for n in range(6)}
    files = {name: midi.write_midi(notes.read(text)) for name, text in tunes.items()}
    files["lmd_full/0/bad.mid"] = b"MThd, and no more"
    source = written(tmp_path / "set", files)
    if packed == "tar.gz":
        with tarfile.open(tmp_path / "lmd_full.tar.gz", "w:gz") as archive:
            archive.add(source, ".")
        source = tmp_path / "lmd_full.tar.gz"
    result = ingest(source, tmp_path / "out", Recipe(split=(100, 0, 0)))
    rows = LocalDataset(tmp_path / "out").documents(TRAIN)
    assert sorted(row["text"] for row in rows) == sorted(tunes.values())
    assert [each.name for each in result.rejects] == ["lmd_full/0/bad.mid"]


ALPACA = [
    {"instruction": "Add.", "input": "1 and 2", "output": "3"},
    {"instruction": "Say hello.", "input": "", "output": "Hello!"},
]
SHAREGPT = [
    {
        "id": "x",
        "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}],
    },
]
CHAT = [
    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]},
]
MESSAGES = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]


@pytest.mark.parametrize(
    "form", ["json", "json pretty", "jsonl", "ndjson", "json of lines", "folder"]
)
@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (ALPACA, [{"prompt": "Add.\n\n1 and 2", "completion": "3"},
                  {"prompt": "Say hello.", "completion": "Hello!"}]),
        (SHAREGPT, [{"messages": MESSAGES}]),
        (CHAT, [{"messages": MESSAGES}]),
    ],
    ids=["alpaca", "ShareGPT", "OpenAI chat"],
)  # fmt: skip
def test_rows_of_conversations(tmp_path, form, rows, expected):
    name, data = {
        "json": ("data.json", json.dumps(rows).encode()),
        "json pretty": ("data.json", json.dumps(rows, indent=2).encode()),
        "jsonl": ("data.jsonl", lines(rows)),
        "ndjson": ("data.ndjson", lines(rows)),
        "json of lines": ("data.json", lines(rows)),
        "folder": ("folder/train.jsonl", lines(rows)),
    }[form]
    written(tmp_path, {name: data})
    source = tmp_path / ("folder" if form == "folder" else name)
    result = ingest(source, tmp_path / "out", Recipe(split=(100, 0, 0)))
    found = [dict(row, split=None) for row in LocalDataset(tmp_path / "out").documents(TRAIN)]
    assert sorted(map(str, found)) == sorted(str({"split": None} | row) for row in expected)
    assert result.rejects == []


HI, HO = MESSAGES
SYSTEM = {"role": "system", "content": "Be kind."}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}
CALLED = {"type": "function", "function": {"name": "f", "arguments": {}}}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": [HI], "completion": [HO]}, {"messages": [HI, HO]}),
        ({"prompt": [SYSTEM, HI], "completion": "Ho"}, {"messages": [SYSTEM, HI, HO]}),
        ({"prompt": "Hi", "completion": [HO]}, {"messages": [HI, HO]}),
        ({"prompt": [HI, HO, HI], "completion": [HO]},
         {"messages": [HI, HO | {"weight": 0}, HI, HO]}),
        ({"messages": [HI, HO | {"content": [{"type": "text", "text": "Ho"}]}], "id": 7},
         {"messages": [HI, HO]}),
        ({"messages": [SYSTEM | {"role": "developer"}, HI, HO | {"weight": 1}]},
         {"messages": [SYSTEM, HI, HO]}),
        ({"messages": [HI, {"role": "assistant", "content": None, "tool_calls": [CALLED]},
                       {"role": "tool", "content": "42"}, HO], "tools": [TOOL]},
         {"messages": [HI, {"role": "assistant", "content": "", "tool_calls": [CALLED]},
                       {"role": "tool", "content": "42"}, HO], "tools": [TOOL]}),
        (SHAREGPT[0] | {"system": "Be kind.", "tools": ""}, {"messages": [SYSTEM, HI, HO]}),
        ({"conversations": MESSAGES}, {"messages": MESSAGES}),
        ({"instruction": "Hi", "output": "Ho", "system": "Be kind.", "history": []},
         {"messages": [SYSTEM, HI, HO]}),
        ({"instruction": "Hi", "output": "Ho", "history": [["Hi", "Ho"]]},
         {"messages": [HI, HO, HI, HO]}),
    ],
)  # fmt: skip
def test_conversations_keep_their_roles(row, expected):
    assert known_row(row) == expected


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"messages": [HI | {"content": [{"type": "image"}]}, HO]}, "type 'image'"),
        ({"messages": [HI | {"role": "narrator"}, HO]}, "unknown role 'narrator'"),
        ({"conversations": [{"from": "alien", "value": "x"}]}, "unknown role 'alien'"),
        ({"prompt": [HI | {"role": "x"}], "completion": [HO]}, "unknown role 'x'"),
        ({"messages": MESSAGES, "tools": [{}]}, "tools"),
        ({"instruction": "Hi", "output": "Ho", "history": ["x", 1]}, "history"),
        ({"prompt": [], "completion": "x"}, "holds none of"),
    ],
)
def test_conversations_that_cannot_be_kept_are_refused_by_name(row, says):
    with pytest.raises(BadInput, match=says):
        known_row(row)


def test_files_of_rows_and_texts_called_by_their_splits(tmp_path):
    for suffix, make in {"jsonl": lambda text: lines([{"text": text}]), "txt": str.encode}.items():
        files = {f"{split}.{suffix}": make(split) for split in ("train", "validation", "test")}
        source = written(tmp_path / suffix, files)
        result = ingest(source, tmp_path / f"{suffix}-out")
        assert result.reading["splits"] == "from the names of the files"
        for code, split in enumerate(("train", "validation", "test")):
            rows = LocalDataset(tmp_path / f"{suffix}-out").documents(code)
            assert [row["text"] for row in rows] == [split]


def test_mnist_in_a_zip(tmp_path, shared_data):
    (tmp_path / "raw").mkdir()
    with zipfile.ZipFile(tmp_path / "mnist.zip", "w") as archive:
        for path in sorted((shared_data / "mnist").glob("t10k*")):
            archive.write(path, f"MNIST/raw/{path.name}")
            (tmp_path / "raw" / path.name).symlink_to(path)
    result = ingest(tmp_path / "mnist.zip", tmp_path / "out")
    assert result.manifest["labels"] == [str(digit) for digit in range(10)]
    plain = ingest(tmp_path / "raw", tmp_path / "plain").manifest
    assert result.manifest["objects"] == plain["objects"]


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("book.md", b"# A book", "a text with mark-up; add it with --kind text"),
        ("rows.csv", b"a,b\n1,2\n", r"a table; write its rows to a \.jsonl file"),
        ("rows.parquet", b"PAR1....PAR1", r"a Parquet table; write its rows to a \.jsonl"),
        ("paper.pdf", b"%PDF-1.7", r"a PDF document; convert it to \.txt"),
        ("set.rar", b"Rar!\x1a\x07\0", "a RAR archive; unpack it, and add the folder"),
        ("set.7z", b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it"),
        (
            "set.zip",
            b"half a download",
            "not a zip file, or cut short.*; download or pack it again",
        ),
        (
            "rows.jsonl.gz",
            b"\x1f\x8b\x08\0\0",
            "compressed by gzip, no archive of several; unpack it first",
        ),
        ("film.mp4", b"\0\0\0\x20ftyp", "a video; extract its frames"),
        ("scan.tiff", b"II*\0", "an image of a format that is not taken; convert it to PNG"),
        ("model.safetensors", b"\0" * 9, "a model's weights; import them with genmill model"),
        ("set.npz", b"\x93NUMPY", "a file of arrays; write the items as PNG"),
        ("empty.bin", b"", "an empty file; check what wrote it"),
        ("big.wav", b"version https://git-lfs.github.com/spec/v1\n", "in truth a Git LFS placeh"),
        ("a.png", b"<!DOCTYPE html><html>404", "in truth a web page; check what the download gave"),
        ("what", b"\x01\x02", "a file without a suffix is not supported; use IDX files"),
    ],
)
def test_a_file_of_another_kind_is_told_what_it_is_and_what_to_do(tmp_path, name, data, says):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(BadInput, match=says) as caught:
        ingest(tmp_path / name, tmp_path / "out")
    assert name in str(caught.value)
    assert "IDX file of bytes" not in str(caught.value)


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (["a.tif", "b.tif"], r"only \.tif \(an image of a format .*\); convert it to PNG"),
        (["train.zip", "test.zip"], r"only \.zip \(an archive in the .*\); unpack it there"),
        (["a.pdf"], r"only \.pdf \(a document\); convert it to \.txt"),
        (["a.csv"], r"only \.csv \(a table\); write its rows to a \.jsonl file"),
        (["a.xyz", "README.md"], r"only \.xyz; use IDX files"),
    ],
)
def test_a_folder_of_nothing_that_is_taken_says_what_it_holds(tmp_path, files, says):
    with pytest.raises(BadInput, match=says):
        taken(tmp_path, dict.fromkeys(files, b"x"))


def test_rows_beside_notes_are_rows(tmp_path):
    files = {"train.jsonl": lines([{"text": "a"}]), "README.txt": b"About.", "LICENSE.txt": b"MIT"}
    result, _ = taken(tmp_path, files | {"test.jsonl": lines([{"text": "b"}])})
    assert result.manifest["source"]["format"] == "jsonl"
    texts, _ = taken(tmp_path / "texts", {"a.txt": b"a", "b.txt": b"b", "c.json": b"{}"})
    assert texts.manifest["source"]["format"] == "texts"


def test_a_json_object_is_not_rows(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"a": 1, "b": [2]}, indent=2))
    with pytest.raises(BadInput, match="one JSON object over several lines, not rows; write"):
        ingest(tmp_path / "config.json", tmp_path / "out")
