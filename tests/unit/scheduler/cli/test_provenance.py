"""`genmill provenance verify`: ours or not, intact or changed and where, of files of every kind."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
from PIL import Image

from tests.marked import SYLLABLES, WEIGHTS, make_marked
from tests.unit.scheduler.cli.conftest import add_model
from tests.unit.worker.marks.watermarks.test_pictures import landscapes
from worker.media.samples.wav import float_to_int16, read_samples, write_wav


def drawn(count: int, seed: int = 0) -> list[np.ndarray]:
    """Grey pictures of three soft blots each."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[:32, :32] / 32
    images = []
    for _ in range(count):
        blots = np.zeros((32, 32))
        for _ in range(3):
            across, down, size = draw.uniform(0.2, 0.8), draw.uniform(0.2, 0.8), draw.uniform(8, 40)
            blots += np.exp(-((x - across) ** 2 + (y - down) ** 2) * size)
        images.append((blots / blots.max() * 255).astype(np.uint8)[..., None])
    return images


def written(count: int) -> list[str]:
    draw = np.random.default_rng(1)
    return [" ".join("".join(draw.choice(SYLLABLES, 3)) for _ in range(80)) for _ in range(count)]


def played(count: int) -> list[np.ndarray]:
    draw = np.random.default_rng(2)
    time = np.arange(1600) / 8000
    return [
        np.concatenate(
            [np.sin(2 * np.pi * draw.uniform(150, 1500) * time) * draw.uniform(0.2, 0.9)
             for _ in range(6)]
        ).astype(np.float32)
        for _ in range(count)
    ]  # fmt: skip


@pytest.fixture
def picture_job(services, digits, tmp_path) -> str:
    return make_marked(services, digits, drawn(6), tmp_path)


@pytest.fixture
def text_job(services, prose, tmp_path) -> str:
    return make_marked(services, prose, written(4), tmp_path)


@pytest.fixture
def sound_job(services, tmp_path) -> str:
    model = add_model(services, "voices", "wavenet", {"media": "audio", "labels": []})
    return make_marked(services, model, played(4), tmp_path)


def fetch(genmill, job: str, folder: str, *words: str) -> Path:
    done = genmill("artifact", "download", job, "-o", folder, *words)
    assert done.code == 0, done.err
    return Path(folder)


def verify(genmill, *paths, code: int = 0):
    done = genmill("provenance", "verify", *map(str, paths), "--json")
    assert done.code == code, done.err
    return done.json


def test_samples_of_every_medium_are_ours_and_intact(genmill, picture_job, sound_job, text_job):
    files = [
        fetch(genmill, picture_job, "p") / "000000004.png",
        fetch(genmill, sound_job, "s") / "000000001.wav",
        fetch(genmill, text_job, "t", "--as", "files") / "000000002.json",
        Path("t/000000002.txt"),
    ]
    rows = verify(genmill, *files)
    numbers = [(row["job"], row["sample"]) for row in rows]
    assert numbers == [(picture_job, 4), (sound_job, 1), (text_job, 2), (text_job, 2)]
    assert {(row["verdict"], row["ours"], row["intact"], row["known_by"]) for row in rows} == {
        ("intact", True, True, "bytes")
    }
    assert [row["medium"] for row in rows] == ["image", "audio", "text", "text"]
    assert (rows[0]["model"], rows[0]["seed"], rows[0]["changes"]) == ("digits:1", 7, [])


def test_files_of_many_samples_are_verified_sample_by_sample(genmill, picture_job, text_job):
    lines = fetch(genmill, text_job, "t") / "samples.jsonl"
    [first, *rest] = lines.read_text("utf-8").splitlines()
    lines.write_text("\n".join([first.replace(" ", "  ", 1), *rest]) + "\n", "utf-8")
    tar = fetch(genmill, picture_job, "w", "--as", "webdataset") / "samples-000000.tar"
    table = fetch(genmill, picture_job, "q", "--as", "parquet") / "samples.parquet"
    rows = verify(genmill, lines, tar, table, code=1)
    assert [row["place"] for row in rows[:4]] == ["line 1", "line 2", "line 3", "line 4"]
    assert [row["verdict"] for row in rows[:4]] == ["changed", "intact", "intact", "intact"]
    assert rows[4]["place"] == "000000000.png"
    assert {row["verdict"] for row in rows[4:]} == {"intact"}
    assert [row["sample"] for row in rows if row["file"] == str(table)] == list(range(6))


def test_of_a_table_the_content_is_verified_and_columns_are_not_believed(
    genmill, picture_job, text_job
):
    pictures = fetch(genmill, picture_job, "q", "--as", "parquet") / "samples.parquet"
    texts = fetch(genmill, text_job, "t", "--as", "parquet") / "samples.parquet"
    rows = verify(genmill, texts)
    assert [(row["verdict"], row["known_by"], row["sample"]) for row in rows] == [
        ("intact", "bytes", number) for number in range(4)
    ]
    assert "its text is as it was stored" in rows[0]["why"]
    _set_in_table(pictures, "model", "digits:9")
    rows = verify(genmill, pictures)
    assert {(row["verdict"], row["model"]) for row in rows} == {("intact", "digits:1")}
    assert rows[0]["beside"] == ["the record beside it is that of another sample"]
    text = pq.read_table(texts)["text"][0].as_py()
    for changed, verdict in ((text + "!", "changed"), ("something else", "unproven")):
        _set_in_table(texts, "text", changed)
        assert verify(genmill, texts, code=1)[0]["verdict"] == verdict
    _set_in_table(texts, "text", text)
    _set_in_table(texts, "model", "prose:9")
    assert verify(genmill, texts, code=1)[0]["verdict"] != "intact"


def _set_in_table(path: Path, column: str, value: str) -> None:
    """Put a value into a column of the first row."""
    rows = pq.read_table(path)
    values = [value, *rows[column].to_pylist()[1:]]
    place = rows.schema.get_field_index(column)
    pq.write_table(rows.set_column(place, rows.schema.field(column), [values]), path)


def test_an_empty_text_is_intact_in_a_table(genmill, services, prose, tmp_path):
    job = make_marked(services, prose, ["", "{", " \n"], tmp_path)
    rows = verify(genmill, fetch(genmill, job, "t", "--as", "parquet"))
    assert [row["verdict"] for row in rows] == ["intact"] * 3


def test_a_folder_is_verified_without_the_records_beside_the_samples(genmill, picture_job):
    folder = fetch(genmill, picture_job, "p")
    Path("p/more").mkdir()
    shutil.copy("p/000000001.png", "p/more")
    Path("p/.hidden").write_text("nothing")
    rows = verify(genmill, folder)
    assert [Path(row["file"]).name for row in rows] == [
        *(f"{number:09d}.png" for number in range(6)), "000000001.png",
    ]  # fmt: skip
    labelled = fetch(genmill, picture_job, "f", "--as", "imagefolder")
    assert len(verify(genmill, labelled)) == 6


def test_one_flipped_byte_is_found_and_named(genmill, picture_job, sound_job):
    for path, part in (
        (fetch(genmill, picture_job, "p") / "000000003.png", "the pixels"),
        (fetch(genmill, sound_job, "s") / "000000003.wav", "the sound"),
    ):
        data = bytearray(path.read_bytes())
        at = data.find(b"IDAT") + 12 if path.suffix == ".png" else 1000
        data[at] ^= 1
        path.write_bytes(data)
        [row] = verify(genmill, path, code=1)
        assert (row["verdict"], row["ours"], row["intact"]) == ("changed", True, False)
        assert (row["known_by"], row["sample"], row["same_content"]) == ("record", 3, False)
        assert row["changes"] == [{"part": part, "what": "differs", "start": at, "stop": at + 1}]


CHANGES: dict[str, Callable[[Image.Image], None]] = {
    "a.jpg": lambda image: image.save("a.jpg", quality=75),
    "half.png": lambda image: image.resize((16, 16)).save("half.png"),
    "cropped.png": lambda image: image.crop((2, 1, 31, 30)).save("cropped.png"),
    "plain.png": lambda image: Image.fromarray(np.asarray(image)).save("plain.png"),
}


def test_a_changed_picture_is_known_by_its_fingerprint(genmill, picture_job):
    with Image.open(fetch(genmill, picture_job, "p") / "000000002.png") as image:
        for change in CHANGES.values():
            change(image)
    rows = verify(genmill, *CHANGES, code=1)
    for row in rows:
        assert (row["verdict"], row["known_by"]) == ("changed", "fingerprint"), row
        assert (row["job"], row["sample"], row["model"]) == (picture_job, 2, "digits:1")
        assert row["nearest"][0]["difference"] <= 1
    assert rows[3]["nearest"][0]["difference"] < 0.1


def test_part_of_a_text_is_known_by_its_fingerprint(genmill, text_job):
    text = json.loads(fetch(genmill, text_job, "t", "--as", "files").joinpath(
        "000000001.json").read_text("utf-8"))["text"]  # fmt: skip
    words = text.split()
    Path("cut.txt").write_text(" ".join(words[:60]))
    Path("turned.txt").write_text(" ".join(words[40:] + words[:40]))
    for row in verify(genmill, "cut.txt", "turned.txt", code=1):
        assert (row["verdict"], row["known_by"], row["sample"]) == ("changed", "fingerprint", 1)


def test_a_stranger_s_file_is_not_ours(genmill, picture_job):
    Image.fromarray(drawn(1, seed=9)[0][..., 0]).save("other.png")
    Path("notes.txt").write_text("Nothing of this was made by a machine, as far as anybody knows.")
    rows = verify(genmill, "other.png", "notes.txt", code=1)
    assert [(row["verdict"], row["ours"], row["job"]) for row in rows] == [
        ("not ours", False, None)
    ] * 2


def test_a_file_that_cannot_be_read_says_that_no_mark_was_looked_for(genmill, picture_job):
    [first, *_] = sorted(fetch(genmill, picture_job, "p").glob("*.png"))
    first.write_bytes(b"?" + first.read_bytes()[1:])
    [row] = verify(genmill, first, code=1)
    assert (row["verdict"], row["medium"]) == ("unproven", None)  # its record can be seen in it
    assert "cannot be read as a picture, a sound or a text" in row["why"]
    first.write_bytes(b"?PNG no record")
    [row] = verify(genmill, first, code=1)
    assert (row["verdict"], row["medium"]) == ("not ours", "text")
    first.write_bytes(b"?PNG\0")
    [row] = verify(genmill, first, code=1)
    assert (row["verdict"], row["medium"]) == ("not ours", None)
    assert "cannot be read as a picture, a sound or a text" in row["why"]


def test_a_record_that_nobody_knows_proves_nothing(genmill, picture_job, text_job):
    line = (
        fetch(genmill, text_job, "t").joinpath("samples.jsonl").read_text("utf-8").splitlines()[0]
    )
    Path("forged.json").write_text(json.dumps(json.loads(line) | {"weights_sha256": "ab" * 32}))
    fetch(genmill, picture_job, "p")
    rows = verify(genmill, "forged.json", "p/000000000.json", code=1)
    assert rows[0]["known_by"] in {"fingerprint", None}
    assert (rows[1]["verdict"], rows[1]["ours"], rows[1]["known_by"]) == (
        "unproven",
        None,
        "record",
    )
    empty = json.loads(line) | {"weights_sha256": "ab" * 32, "text": "a few words"}
    Path("empty.json").write_text(json.dumps(empty))
    [row] = verify(genmill, "empty.json", code=1)
    assert (row["verdict"], row["ours"], row["known_by"]) == ("unproven", None, None)
    assert "nothing here shows it" in row["why"]


def test_what_people_read_says_it_in_plain_words(genmill, picture_job):
    path = fetch(genmill, picture_job, "p") / "000000005.png"
    done = genmill("provenance", "verify", str(path))
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"{path}: intact\n  Made here, and not changed since")
    assert {"job", "sample", "model", "seed"} <= {line.split()[0] for line in done.out.splitlines()}
    path.write_bytes(path.read_bytes() + b"more")
    done = genmill("provenance", "verify", str(path), "p/000000001.png")
    assert done.code == 1
    assert "what follows: bytes " in done.out
    assert done.out.rstrip().endswith("2 files: 1 changed, 1 intact")
    assert done.err == "Error: not all are ours and unchanged: 2 files: 1 changed, 1 intact\n"


def test_many_files_are_summed_up(genmill, picture_job):
    fetch(genmill, picture_job, "p")
    for number in range(30):
        shutil.copy("p/000000001.png", f"p/{number}.png")
    assert genmill("provenance", "verify", "p").out == "36 files: 36 intact\n"


HOSTILE = {
    "empty": b"",
    "noise.png": np.random.default_rng(0).bytes(3000),
    "head.png": b"\x89PNG\r\n\x1a\n",
    "huge.png": b"\x89PNG\r\n\x1a\n\xff\xff\xff\xffIHDR" + bytes(40),
    "head.wav": b"RIFF\xff\xff\xff\xffWAVEfmt ",
    "open.wav": b"RIFF\x24\0\0\0WAVEfmt \xf0\xff\xff\xff" + bytes(64),
    "deep.json": b'{"text":' * 20_000,
    "text.json": b'{"text": {"a": 1}, "seed": [], "index": 1e400, "model": "\\u0000"}',
    "lone.json": b'{"text": "\\ud800 and some more words here", "weights_sha256": 3}',
    "escape.txt": b"\x1b[31mred \x00\x1b]0;title\x07",
    "bom.txt": "﻿words that a program wrote with a mark in front".encode("utf-16"),
    "not.tar": b"no tar" * 400,
    "not.parquet": b"PAR1 and no more",
    "lines.jsonl": b'{"a": 1}\nnot json\n\n\xff\xfe\n',
    "song.mid": b"MThd\0\0\0\x06\0\1\0\1\0\x60MTrk\xff\xff\xff\xff",
    "photo.jpg": b"\xff\xd8\xff\xe0\0\x10JFIF" + bytes(300),
    "a.gif": b"GIF89a\xff\xff\xff\xff\0\0\0",
}


def test_hostile_files_get_a_verdict_and_never_a_traceback(genmill, picture_job):
    folder = Path("hostile")
    folder.mkdir()
    for name, data in HOSTILE.items():
        (folder / name).write_bytes(data)
    sample = (fetch(genmill, picture_job, "p") / "000000000.png").read_bytes()
    for cut in range(0, len(sample), 97):
        (folder / f"cut-{cut}.png").write_bytes(sample[:cut])
    done = genmill("provenance", "verify", str(folder), "--json")
    assert (done.code, "Traceback" in done.err, "unforeseen" in done.err) == (1, False, False), (
        done.err
    )
    assert {row["verdict"] for row in done.json} <= {"changed", "unproven", "not ours"}
    for words in ((), ("--trust", str(trust(genmill)))):
        told = genmill("provenance", "verify", str(folder), *words)
        assert (told.code, "Traceback" in told.err, "\x1b" in told.out) == (1, False, False)


@pytest.mark.parametrize("name", ["not.tar", "empty.jsonl"])
def test_files_in_which_nothing_is_are_not_all_ours(genmill, picture_job, name):
    Path(name).write_bytes(b"" if name.startswith("empty") else b"no tar")
    done = genmill("provenance", "verify", name)
    assert (done.code, "Not verified" in done.out) == (1, True), done.out


def trust(genmill) -> Path:
    done = genmill("key", "export", "trust.json")
    assert done.code == 0, done.err
    return Path("trust.json")


def test_a_trust_bundle_needs_no_database(genmill, picture_job, monkeypatch, tmp_path):
    path, bundle = fetch(genmill, picture_job, "p") / "000000001.png", trust(genmill)
    monkeypatch.setenv("GENMILL_HOME", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GENMILL_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    done = genmill("provenance", "verify", "--trust", str(bundle), str(path), "--json")
    [row] = done.json
    assert (done.code, row["verdict"], row["job"]) == (1, "unproven", None)
    assert (row["model"], row["sample"]) == ("digits:1", 1)
    assert not (tmp_path / "elsewhere").exists()
    refused = genmill("provenance", "verify", str(path))
    assert (refused.code, "--trust" in refused.err) == (3, True)


def test_what_is_no_trust_bundle_is_refused(genmill, picture_job):
    path = fetch(genmill, picture_job, "p") / "000000001.png"
    Path("other.json").write_text("{}")
    for wrong in ("other.json", "missing.json", "p"):
        done = genmill("provenance", "verify", "--trust", wrong, str(path))
        assert (done.code, done.out) == (2, ""), wrong


def test_paths_that_cannot_be_verified_are_wrong_usage(genmill):
    Path("empty").mkdir()
    os.mkfifo("pipe.png")
    for wrong in ("missing.png", "empty", "pipe.png", "/dev/zero"):
        done = genmill("provenance", "verify", wrong)
        assert (done.code, wrong in done.err) == (2, True)


def test_a_pipe_in_a_folder_is_skipped(genmill, picture_job):
    folder = fetch(genmill, picture_job, "p")
    os.mkfifo(folder / "pipe")
    assert len(verify(genmill, folder)) == 6


def test_lost_samples_and_fingerprints_do_not_stop_the_search(genmill, services, picture_job):
    with Image.open(fetch(genmill, picture_job, "p") / "000000002.png") as image:
        image.save("a.jpg", quality=75)
    shutil.rmtree(services.settings.home / "store" / "jobs")
    [row] = verify(genmill, "a.jpg", code=1)
    assert (row["verdict"], row["nearest"]) == ("not ours", [])


def test_fingerprints_are_checked_and_not_downloaded(genmill, picture_job):
    folder = fetch(genmill, picture_job, "p")
    assert not list(folder.glob("*fingerprints*"))
    kinds = [each["kind"] for each in genmill("artifact", "list", picture_job, "--json").json]
    assert kinds.count("fingerprints") == kinds.count("samples") == 3
    assert genmill("artifact", "verify", picture_job).code == 0


def test_a_copied_record_makes_no_other_picture_ours(genmill, picture_job):
    """Anybody can write the record of a sample, which is in its file, into a picture of theirs."""
    sample = (fetch(genmill, picture_job, "p") / "000000001.png").read_bytes()
    other = (fetch(genmill, picture_job, "q") / "000000004.png").read_bytes()
    Image.fromarray(drawn(1, seed=9)[0][..., 0]).save("theirs.png")
    theirs = Path("theirs.png").read_bytes()
    for name, pixels in (("forged.png", theirs), ("swapped.png", other)):
        Path(name).write_bytes(_with_pixels_of(sample, pixels))
    forged, swapped = verify(genmill, "forged.png", "swapped.png", code=1)
    assert (forged["verdict"], forged["ours"], forged["job"]) == ("unproven", None, None)
    assert "is not that sample" in forged["why"]
    # of another sample of ours: known by its look, not by what it says
    assert (swapped["verdict"], swapped["known_by"], swapped["sample"]) == (
        "changed", "fingerprint", 4,
    )  # fmt: skip


def _with_pixels_of(sample: bytes, other: bytes) -> bytes:
    """A PNG file whose pixels are those of another."""
    from worker.media import find_medium

    parts = {
        data: [
            (part.name, data[part.start : part.stop]) for part in find_medium("image").parts(data)
        ]
        for data in (sample, other)
    }
    pixels = b"".join(chunk for name, chunk in parts[other] if name == "the pixels")
    return b"".join(pixels if name == "the pixels" else chunk for name, chunk in parts[sample])


@pytest.fixture
def signed_job(genmill, services, digits, tmp_path) -> str:
    """A job with a licence and a signature, by keys that were made by commands."""
    assert genmill("key", "create", "signing", "--name", "Example Ltd").code == 0
    lines = ['marks = ["record", "licence", "iptc", "c2pa"]', "[licence]", 'licence = "CC-BY-4.0"']
    lines += ["[c2pa]", 'trained_on = ["glyphs:1"]']
    Path("house.toml").write_text("\n".join(lines))
    return make_marked(services, digits, drawn(4), tmp_path, marks="./house.toml")


def test_a_signature_shows_a_stranger_that_a_file_is_ours(
    genmill, signed_job, tmp_path, monkeypatch
):
    folder, bundle = fetch(genmill, signed_job, "p"), trust(genmill)
    monkeypatch.setenv("GENMILL_HOME", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GENMILL_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    offline = ("--trust", str(bundle))
    rows = verify(genmill, *offline, folder)
    assert [(row["verdict"], row["known_by"], row["sample"]) for row in rows] == [
        ("intact", "signature", number) for number in range(4)
    ]
    assert (rows[0]["model"], rows[0]["seed"], rows[0]["licence"]) == ("digits:1", 7, "CC-BY-4.0")
    assert {row["dataset"] for row in rows} == {"glyphs:1"}
    sample = (folder / "000000002.png").read_bytes()
    at = sample.index(b"IDAT") + 12
    Path("flipped.png").write_bytes(sample[:at] + bytes([sample[at] ^ 1]) + sample[at + 1 :])
    with Image.open(folder / "000000002.png") as image:
        Image.fromarray(np.asarray(image)).save("stripped.png")
    flipped, stripped = verify(genmill, *offline, "flipped.png", "stripped.png", code=1)
    assert (flipped["verdict"], flipped["ours"]) == ("unproven", None)
    assert "does not fit" in flipped["why"]
    [change] = flipped["changes"]
    assert (change["part"], change["what"]) == ("the pixels", "damaged")
    assert change["start"] < at < change["stop"]
    [mark] = [each for each in flipped["marks"] if each["mark"] == "c2pa"]
    assert (mark["state"], mark["says"]["broken"]) == ("damaged", ["assertion.dataHash.mismatch"])
    assert (stripped["verdict"], stripped["ours"]) == ("not ours", False)
    assert "were not looked at" in stripped["why"]


@pytest.fixture
def signed_texts(genmill, services, prose, tmp_path) -> str:
    """A job of signed texts."""
    assert genmill("key", "create", "signing", "--name", "Example Ltd").code == 0
    Path("house.toml").write_text('marks = ["record", "iptc", "c2pa"]')
    return make_marked(services, prose, written(4), tmp_path, marks="./house.toml")


def test_signed_texts_are_ours_to_a_stranger_in_every_form(
    genmill, signed_texts, tmp_path, monkeypatch
):
    lines = fetch(genmill, signed_texts, "lines", "--as", "jsonl")
    files = fetch(genmill, signed_texts, "files", "--as", "files")
    table = fetch(genmill, signed_texts, "table", "--as", "parquet")
    offline = ("--trust", str(trust(genmill)))
    monkeypatch.setenv("GENMILL_HOME", str(tmp_path / "elsewhere"))
    assert len(list(files.iterdir())) == 12
    for folder in (lines, files, table):
        rows = verify(genmill, *offline, folder)
        assert [(row["verdict"], row["known_by"], row["sample"]) for row in rows] == [
            ("intact", "signature", number) for number in range(4)
        ]
        assert (rows[0]["model"], rows[0]["seed"]) == ("prose:1", 7)
    # the text is bound by its manifest, and what the record beside it says is not
    record = files / "000000002.json"
    record.write_text(record.read_text().replace('"prose:1"', '"bard:9"'))
    [row] = verify(genmill, *offline, files / "000000002.txt")
    assert (row["verdict"], row["model"]) == ("intact", "prose:1")
    [row] = verify(genmill, *offline, record, code=1)
    assert (row["verdict"], row["ours"]) == ("unproven", None)
    text = files / "000000003.txt"
    text.write_text(text.read_text() + "more")
    [row] = verify(genmill, *offline, text, code=1)
    assert (row["verdict"], "does not fit" in row["why"]) == ("unproven", True)
    text.write_bytes(text.read_bytes() + b"\xff")  # no text any more
    [row] = verify(genmill, *offline, text, code=1)
    assert (row["medium"], row["verdict"]) == (None, "unproven")
    assert "does not fit" in row["why"]


def test_a_file_beside_a_text_that_is_another_s_is_told(genmill, signed_texts):
    folder = fetch(genmill, signed_texts, "t", "--as", "files")
    first, second = sorted(folder.glob("*.txt"))[:2]

    def swap(suffix: str) -> None:
        one, other = (each.with_suffix(suffix) for each in (first, second))
        data = one.read_bytes()
        one.write_bytes(other.read_bytes())
        other.write_bytes(data)

    swap(".c2pa")
    manifest = "the C2PA manifest beside it does not fit it"
    rows = verify(genmill, folder)
    assert [(row["verdict"], row["beside"]) for row in rows[:2]] == [("intact", [manifest])] * 2
    told = genmill("provenance", "verify", str(folder)).out
    assert told.count(manifest) == 4  # in the table, and of each
    assert "2 with a file beside it that is not its own" in told
    assert f"  beside  {manifest}" in genmill("provenance", "verify", str(first)).out
    swap(".c2pa")
    swap(".json")
    told = genmill("provenance", "verify", str(folder)).out
    assert told.count("the record beside it is that of another sample") == 4


@pytest.fixture
def marked_tunes(genmill, services, tmp_path) -> str:
    """A job of two tunes with the marks of `eu-art50`."""
    for purpose in ("signing", "watermark"):
        assert genmill("key", "create", purpose).code == 0
    model = add_model(services, "tunes", "gpt", {"media": "text", "labels": []})
    tunes = [" ".join(f"{60 + step * n}:4" for n in range(9)) for step in (1, 2)]
    return make_marked(services, model, tunes, tmp_path, marks="eu-art50")


def test_sounds_made_of_texts_are_marked_anew(genmill, marked_tunes, tmp_path, monkeypatch):
    done = genmill("artifact", "download", marked_tunes, "-o", "w", "--as", "wav")
    assert done.code == 0, done.err
    assert "marks made anew in the converted files: c2pa 2, iptc 2, record 2" in done.err
    assert "without the mark text_watermark: 2, not a text" in done.err
    told = json.loads(Path("w/marks.json").read_text())
    [group] = told["groups"]
    assert (group["job"], group["samples"], told["files"]) == (marked_tunes, "0-1", 2)
    assert group["not_applied"]["text_watermark"] == "not a text"
    assert told["marks"]["sound_watermark"] == {"applied": 2, "not_applied": {}}
    row, _ = verify(genmill, "w")
    states = {each["mark"]: each["state"] for each in row["marks"]}
    assert (row["verdict"], row["known_by"]) == ("intact", "signature")
    assert {states[name] for name in ("c2pa", "iptc", "record", "sound_watermark")} == {"present"}
    done = genmill("artifact", "download", marked_tunes, "-o", "m", "--as", "midi", "--json")
    marks = done.json["marks"]
    assert marks["c2pa"] == {"applied": 0, "not_applied": {".mid files cannot carry it": 2}}
    assert "record" not in marks
    assert {each.name for each in Path("m").iterdir()} >= {"marks.json", "000000001.mid"}
    [row, _] = verify(genmill, "m", code=1)
    assert (row["verdict"], row["known_by"], row["job"]) == ("unproven", "record", marked_tunes)


def test_the_list_of_marks_is_about_all_files_in_the_folder(genmill, marked_tunes):
    def told(*words):
        done = genmill("artifact", "download", marked_tunes, "-o", "out", *words, "--json")
        assert done.code == 0, done.err
        assert sum(done.json["marks"]["c2pa"]["not_applied"].values()) == 1
        listed = json.loads(Path("out/marks.json").read_text())
        assert listed["files"] == sum(listed["marks"]["c2pa"]["not_applied"].values())
        return [each["samples"] for each in listed["groups"]]

    assert told("--as", "midi", "--sample", "0") == ["0"]
    assert told("--as", "midi", "--sample", "1") == ["0-1"]
    assert told("--as", "midi", "--pattern", "*1.mid") == ["0-1"]
    Path("out/000000000.mid").unlink()
    assert told("--as", "midi", "--sample", "1") == ["1"]
    for damaged in ("[]", '{"groups": [{}]}', "\0"):
        Path("out/marks.json").write_text(damaged)
        assert told("--as", "midi", "--sample", "1") == ["1"]
    done = genmill("artifact", "download", marked_tunes, "-o", "out", "--as", "wav")
    assert done.code == 0, done.err
    listed = json.loads(Path("out/marks.json").read_text())
    assert [(each["suffix"], each["samples"]) for each in listed["groups"]] == [
        (".mid", "1"),
        (".wav", "0-1"),
    ]
    lacking = {".mid files cannot carry it": 1}
    assert listed["marks"]["c2pa"] == {"applied": 2, "not_applied": lacking}


def test_without_the_keys_no_unmarked_sound_is_made(genmill, marked_tunes, home):
    (home / "keys" / "master.key").rename("elsewhere")
    done = genmill("artifact", "download", marked_tunes, "-o", "w", "--as", "wav")
    assert (done.code, "the installation key is missing" in done.err) == (1, True)
    assert not list(Path("w").glob("*.wav"))
    assert genmill("artifact", "download", marked_tunes, "-o", "m", "--as", "midi").code == 0


def test_of_a_signed_line_the_changed_part_is_named(genmill, signed_texts):
    path = fetch(genmill, signed_texts, "lines") / "samples.jsonl"
    first, *_ = path.read_text().splitlines()
    inside = first[-1500:-1450]  # of the manifest
    for part, (old, new) in {
        "the text": ('"text":"', '"text":"A'),
        "the record": ('"seed":7', '"seed": 7'),
        "the signed manifest": (inside, inside[::-1]),
    }.items():
        assert first.count(old) == 1
        Path("one.jsonl").write_text(first.replace(old, new) + "\n")
        [row] = verify(genmill, "one.jsonl", code=1)
        assert (row["verdict"], {each["part"] for each in row["changes"]}) == ("changed", {part})
        [mark] = [each for each in row["marks"] if each["mark"] == "c2pa"]
        assert mark["state"] == "damaged"


def test_another_installation_s_signature_is_not_ours(genmill, signed_job, tmp_path, monkeypatch):
    folder = fetch(genmill, signed_job, "p")
    monkeypatch.setenv("GENMILL_HOME", str(tmp_path / "elsewhere"))
    monkeypatch.delenv("GENMILL_DATABASE_URL", raising=False)
    assert genmill("key", "create", "signing", "--name", "Another").code == 0
    [row] = verify(genmill, folder / "000000000.png", code=1)
    assert (row["verdict"], row["ours"], row["known_by"]) == ("unproven", None, None)
    assert "Example Ltd" in str(row["marks"])


def test_a_revoked_key_shows_nothing(genmill, signed_job):
    folder = fetch(genmill, signed_job, "p")
    [key] = [
        each["id"] for each in genmill("key", "list", "--json").json if each["purpose"] == "signing"
    ]
    assert genmill("key", "revoke", key, "--reason", "stolen").code == 0
    [row] = verify(genmill, "--trust", trust(genmill), folder / "000000000.png", code=1)
    assert (row["verdict"], row["ours"]) == ("unproven", None)
    assert "was revoked" in str(row["marks"])
    assert verify(genmill, folder / "000000000.png")[0]["known_by"] == "bytes"


def test_of_jobs_with_other_marks_and_one_seed_the_right_one_is_named(
    genmill, services, digits, tmp_path
):
    make_marked(services, digits, drawn(4), tmp_path)
    Path("iptc.toml").write_text('marks = ["record", "iptc"]')
    marked = make_marked(services, digits, drawn(4), tmp_path, marks="./iptc.toml")
    path = fetch(genmill, marked, "p") / "000000003.png"
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 12] ^= 1
    path.write_bytes(data)
    [row] = verify(genmill, path, code=1)
    assert (row["verdict"], row["known_by"], row["job"]) == ("changed", "record", marked)


def test_a_licence_and_marks_are_told_to_people(genmill, signed_job):
    path = fetch(genmill, signed_job, "p") / "000000001.png"
    done = genmill("provenance", "verify", str(path))
    assert (done.code, "licence" in done.out, "CC-BY-4.0" in done.out) == (0, True, True)
    assert "present" in done.out
    assert "Example Ltd" in done.out


def test_a_broken_file_of_many_samples_is_never_passed(genmill, picture_job, tmp_path):
    """What is cut off has a row that says so, after the samples that can still be read."""
    tar = fetch(genmill, picture_job, "w", "--as", "webdataset") / "samples-000000.tar"
    table = fetch(genmill, picture_job, "q", "--as", "parquet") / "samples.parquet"
    whole = tar.read_bytes()
    ends = whole.rindex(b"000000001.png")  # where the second member begins
    for name, data in {
        "half.tar": whole[: len(whole) // 2],
        "header.tar": whole[: ends + 100],
        "between.tar": whole[:ends],
        "none.tar": b"nontar" * 100,
        "empty.tar": b"",
        "cut.parquet": table.read_bytes()[:-20],
        "empty.parquet": b"",
        "empty.jsonl": b"",
    }.items():
        Path(name).write_bytes(data)
        *samples, last = verify(genmill, name, code=1)
        assert (last["verdict"], last["ours"], last["place"]) == ("unproven", None, None), name
        assert "Not verified" in last["why"]
        assert last["sha256"] is None
        assert {row["verdict"] for row in samples} <= {"intact"}
        assert len(samples) == (name in {"half.tar", "header.tar", "between.tar"}), name
    done = genmill("artifact", "which", "header.tar", "--json")
    assert (done.code, [row["job"] for row in done.json]) == (0, [picture_job])


@pytest.fixture
def watermarked_job(genmill, services, digits, tmp_path) -> str:
    assert genmill("key", "create", "watermark").code == 0
    Path("house.toml").write_text('marks = ["record", "picture_watermark"]')
    return make_marked(services, digits, list(landscapes(1)), tmp_path, marks="./house.toml")


DAMAGE = """
import sys
from pathlib import Path
import pyarrow as pa
import pyarrow.parquet as pq
from scheduler.results.pieces import read_items
path = Path(sys.argv[1])
pq.write_table(pa.table({"image": [{"bytes": b"a"}, {"bytes": b"b"}]}), path)
whole = path.read_bytes()
start = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
for at in range(start, start + 50):
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 2]) + whole[at + 1:])
    assert [*read_items(path)]
"""


def test_no_damage_to_what_a_table_says_of_itself_ends_the_process(tmp_path):
    """pyarrow does so, and says nothing, where the sizes of a column are asked for."""
    words = [sys.executable, "-c", DAMAGE, str(tmp_path / "t.parquet")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-500:]


def test_a_watermark_of_a_revoked_key_is_told_in_plain_words(genmill, watermarked_job, monkeypatch):
    monkeypatch.setattr(
        "scheduler.provenance.verify.find_nearest", lambda _, looks: [[] for _ in looks]
    )
    [key] = [each["id"] for each in genmill("key", "list", "--json").json]
    with Image.open(fetch(genmill, watermarked_job, "p") / "000000000.png") as image:
        image.convert("RGB").save("copy.jpg", quality=95)
    assert genmill("key", "revoke", key, "--reason", "it leaked").code == 0
    done = genmill("provenance", "verify", "copy.jpg")
    assert (done.code, done.out.splitlines()[0]) == (1, "copy.jpg: unproven")
    assert "It has a watermark made with a key of ours that was revoked" in done.out
    [line] = [each for each in done.out.splitlines() if "picture watermark" in each]
    assert re.search(rf"revoked; .*; its key {key} was revoked on [0-9-]+: it leaked$", line)
    assert "trust" not in line


def test_a_webp_copy_is_read_as_a_picture(genmill, watermarked_job):
    """Its file begins as a sound's does, with `RIFF`."""
    with Image.open(fetch(genmill, watermarked_job, "p") / "000000000.png") as image:
        picture = image.convert("RGB")
    picture.save("lossless.webp", lossless=True)
    picture.save("lossy.webp", quality=90)
    picture.resize((128, 128), Image.Resampling.BICUBIC).save("doubled.webp", lossless=True)
    for row in verify(genmill, "lossless.webp", "lossy.webp", "doubled.webp", code=1):
        assert (row["medium"], row["verdict"]) == ("image", "changed")
        states = {mark["mark"]: mark["state"] for mark in row["marks"]}
        assert states["picture_watermark"] == "present", row  # with its p-value
        assert states["sound_watermark"] == "not applicable"
    Path("film.avi").write_bytes(b"RIFF\x24\0\0\0AVI LIST" + bytes(24))
    [film] = verify(genmill, "film.avi", code=1)
    assert (film["medium"], film["verdict"], film["marks"]) == (None, "not ours", [])


def test_of_a_watermarked_copy_the_job_is_named_too(genmill, services, digits, tmp_path):
    assert genmill("key", "create", "watermark").code == 0
    Path("house.toml").write_text('marks = ["record", "picture_watermark", "fingerprint"]')
    job = make_marked(services, digits, list(landscapes(3)), tmp_path, marks="./house.toml")
    with Image.open(fetch(genmill, job, "p") / "000000001.png") as image:
        image.convert("RGB").save("copy.jpg", quality=75)
    [row] = verify(genmill, "copy.jpg", code=1)
    assert (row["verdict"], row["known_by"]) == ("changed", "watermark")
    assert (row["job"], row["sample"]) == (job, 1)
    assert row["artifact"]
    assert "our watermark is in it, and its content is that of no other" in row["why"]


def test_what_comes_nearest_is_told_to_be_a_copy_by_the_verdict_on_it(
    genmill, services, digits, tmp_path
):
    Path("house.toml").write_text('marks = ["record", "fingerprint"]')
    job = make_marked(services, digits, list(landscapes(3)), tmp_path, marks="./house.toml")
    with Image.open(fetch(genmill, job, "p") / "000000001.png") as image:
        image.convert("RGB").save("near.jpg", quality=40)
        image.convert("RGB").save("far.jpg", quality=10)
    told = genmill("provenance", "verify", "near.jpg", "far.jpg").out
    differences = re.findall(r"content by ([\d.]+); (a copy|not a copy)", told)
    assert [what for _, what in differences[:2]] == ["a copy", "not a copy"], told
    assert 1 < float(differences[0][0]) < 2


def test_a_labelled_sound_without_its_metadata_is_known_by_its_fingerprint(
    genmill, services, tmp_path
):
    model = add_model(services, "voices", "wavenet", {"media": "audio", "labels": []})
    Path("house.toml").write_text('marks = ["record", "fingerprint", "visible_label"]')
    sounds = [each[:3200] for each in played(3)]  # shorter than the label
    job = make_marked(services, model, sounds, tmp_path, marks="./house.toml")
    data = (fetch(genmill, job, "s") / "000000001.wav").read_bytes()
    samples, rate = read_samples(data)
    Path("bare.wav").write_bytes(write_wav(float_to_int16(samples), rate, {}))
    [row] = verify(genmill, "bare.wav", code=1)
    assert (row["verdict"], row["known_by"], row["sample"]) == ("changed", "fingerprint", 1)


def test_of_jobs_with_the_same_content_none_is_named(genmill, services, digits, tmp_path):
    """What is left of a copy is what they share: the model, the seed and the sample."""
    lines = ['marks = ["record", "fingerprint", "licence"]', "[licence]", 'licence = "CC-BY-4.0"']
    Path("house.toml").write_text("\n".join(lines))
    jobs = [
        make_marked(services, digits, drawn(4), tmp_path),
        make_marked(services, digits, drawn(4), tmp_path, marks="./house.toml"),
    ]
    with Image.open(fetch(genmill, jobs[0], "p") / "000000003.png") as image:
        Image.fromarray(np.asarray(image)).save("copy.png")
    [row] = verify(genmill, "copy.png", code=1)
    assert (row["verdict"], row["known_by"]) == ("changed", "fingerprint")
    assert (row["job"], row["artifact"], row["licence"], row["also"]) == (None, None, None, [])
    assert (row["model"], row["seed"], row["sample"]) == ("digits:1", 7, 3)
    assert "several jobs" in row["why"]
    assert {near["job"] for near in row["nearest"] if near["copy"]} == set(jobs)


def test_a_mark_that_is_not_in_such_files_is_not_damaged(genmill, picture_job):
    with Image.open(fetch(genmill, picture_job, "p") / "000000000.png") as image:
        image.save("copy.bmp")
    Path("cut.bmp").write_bytes(Path("copy.bmp").read_bytes()[:60])
    Path("plain.txt").write_text("Nothing of genmill is in this text, which a person wrote. " * 9)
    Path("brace.txt").write_text("{draft} of a text")
    with soundfile.SoundFile("tone.mp3", "w", 8000, 1) as file:
        file.write(played(1)[0])
    for name in ("copy.bmp", "cut.bmp", "plain.txt", "brace.txt", "tone.mp3"):
        [row] = verify(genmill, name, code=1)
        states = {mark["mark"]: mark["state"] for mark in row["marks"]}
        assert set(states.values()) <= {"absent", "not applicable"}, (name, row["marks"])
        assert "BytesIO" not in str(row)


def test_a_file_of_ours_that_is_cut_off_is_not_called_a_stranger_s(
    genmill, picture_job, sound_job, text_job
):
    line = (fetch(genmill, text_job, "t") / "samples.jsonl").read_bytes().splitlines()[0]
    for path in (
        fetch(genmill, picture_job, "p") / "000000003.png",
        fetch(genmill, sound_job, "s") / "000000003.wav",
        Path("t/line.json"),
    ):
        data = line if path.suffix == ".json" else path.read_bytes()
        at = data.index(b"genmill")
        for size in {at + 20, (at + len(data)) // 2, len(data) - 3}:
            Path(f"cut{path.suffix}").write_bytes(data[:size])
            [row] = verify(genmill, f"cut{path.suffix}", code=1)
            assert row["verdict"] in {"changed", "unproven"}, (path, size, row["why"])
            assert "No mark of ours" not in row["why"]


def test_a_record_that_is_not_whole_any_more_is_not_called_a_stranger_s(
    genmill, sound_job, text_job
):
    line = (fetch(genmill, text_job, "t") / "samples.jsonl").read_bytes().splitlines()[0]
    line = line[: line.index(b'"text"')] + b'"text":"short"}'
    sound = (fetch(genmill, sound_job, "s") / "000000003.wav").read_bytes()
    changes = [(WEIGHTS, WEIGHTS.upper()), ('"seed":7', '"seex":7'), ('"genmill"', '"genmilk"')]
    changes += [('"weights_sha256"', '"weights_sha257"')]
    for old, new in changes:
        Path("one.json").write_bytes(line.replace(old.encode(), new.encode()))
        Path("one.wav").write_bytes(sound.replace(old.encode(), new.encode()))
        for row in verify(genmill, "one.json", "one.wav", code=1):
            assert row["verdict"] in {"changed", "unproven"}, (row["file"], old, row["why"])
    for whole in (b"?" + line, b"[" + line, line.decode().encode("utf-16")):
        Path("one.json").write_bytes(whole)
        [row] = verify(genmill, "one.json", code=1)
        assert row["verdict"] == "unproven"
    Path("one.json").write_bytes(b'{"genmill":1,"text":"of a person"}')
    assert verify(genmill, "one.json", code=1)[0]["verdict"] == "not ours"


@pytest.mark.parametrize("start", [b"\xef\xbb\xbf", b" ", b"\r\n", b"\xef\xbb\xbf\t"])
def test_a_line_behind_a_mark_of_utf_8_or_spaces_is_changed(genmill, signed_texts, start):
    [line, *_] = (fetch(genmill, signed_texts, "t") / "samples.jsonl").read_bytes().splitlines()
    Path("one.json").write_bytes(start + line)
    [row] = verify(genmill, "one.json", code=1)
    assert (row["verdict"], row["known_by"], row["sample"]) == ("changed", "record", 0)
    assert row["same_content"]
    [row] = verify(genmill, "--trust", str(trust(genmill)), "one.json", code=1)
    assert (row["verdict"], row["ours"]) == ("unproven", None)
    [mark] = [each for each in row["marks"] if each["mark"] == "c2pa"]
    assert (mark["state"], mark["says"]["broken"]) == ("damaged", ["genmill.line.mismatch"])


def test_a_text_that_its_tokenizer_fails_at_does_not_end_the_verification(
    genmill, text_job, monkeypatch
):
    def fail(*_):
        raise TypeError("TextInputSequence must be str")

    monkeypatch.setattr("scheduler.provenance.text_watermarks.TextWatermarks.read", fail)
    rows = verify(genmill, fetch(genmill, text_job, "t"))
    assert [row["verdict"] for row in rows] == ["intact"] * 4


def test_json_lines_that_are_only_spaced_differently_say_so(genmill, text_job):
    lines = (fetch(genmill, text_job, "t") / "samples.jsonl").read_bytes().splitlines()
    spaced = json.dumps(json.loads(lines[1]), ensure_ascii=False, separators=(" , ", " : "))
    other = json.dumps({**json.loads(lines[2]), "note": 1})
    Path("t.jsonl").write_bytes(b"\r\n".join([lines[0], spaced.encode(), other.encode()]) + b"\r\n")
    rows = verify(genmill, "t.jsonl", code=1)
    assert [row["verdict"] for row in rows] == ["changed"] * 3
    assert ["Only the spacing" in row["why"] for row in rows] == [True, True, False]


def test_a_line_with_a_second_text_is_not_said_to_read_the_same(genmill, text_job):
    [line, *_] = (fetch(genmill, text_job, "t") / "samples.jsonl").read_bytes().splitlines()
    Path("t.jsonl").write_bytes(b'{"text":"what others read",' + line[1:])
    [row] = verify(genmill, "t.jsonl", code=1)
    assert (row["verdict"], row["same_content"]) == ("changed", False)
    assert "still shows the same" not in row["why"]
