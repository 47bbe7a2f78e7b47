from pathlib import Path

import numpy as np
from PIL import Image

from worker.media.samples.wav import write_wav


def shade(level: int) -> Image.Image:
    """A picture of two halves, the right one brighter."""
    return Image.fromarray(np.repeat([[level, level + 100]], 12, 0).repeat(6, 1).astype(np.uint8))


def test_a_text_file_becomes_a_version_and_the_same_again_is_the_same(genmill):
    Path("poems.txt").write_text("春眠不觉晓、处处闻啼鸟。\n" * 200, encoding="utf-8")
    assert genmill("dataset", "add", "poems", "poems.txt").out == "poems:1\n"
    assert genmill("dataset", "add", "poems", "poems.txt").out == "poems:1\n"
    Path("poems.txt").write_text("夜来风雨声、花落知多少。\n" * 200, encoding="utf-8")
    assert genmill("dataset", "add", "poems", "poems.txt").out == "poems:2\n"
    shown = genmill("dataset", "show", "poems", "--json").json
    assert (shown["version"], shown["kind"], shown["versions"]) == (2, "text", [1, 2])


def test_a_folder_of_pictures_takes_its_labels_from_its_folders(genmill, tmp_path):
    for label in ("dark", "light"):
        (tmp_path / "shades" / label).mkdir(parents=True)
        for i in range(10):
            shade(i + (100 if label == "light" else 0)).save(
                tmp_path / "shades" / label / f"{i}.png"
            )
    added = genmill("dataset", "add", "shades", "shades", "--size", "8", "--json").json
    assert added["labels"] == ["dark", "light"]
    assert (added["shape"]["size"], sum(added["counts"].values())) == (8, 20)
    row = genmill("dataset", "list").out.splitlines()[1].split()
    assert row[:5] == ["shades", "1", "image", "20", "2"]


def test_rejected_files_beyond_those_that_are_kept_are_counted(genmill, tmp_path, monkeypatch):
    monkeypatch.setattr("worker.source_files.members.MAX_REPORTED", 22)
    (tmp_path / "mixed").mkdir()
    for n in range(10):
        shade(n).save(tmp_path / "mixed" / f"{n}.png")
    for n in range(30):
        (tmp_path / "mixed" / f"{n}.mp4").write_bytes(b"film")
    added = genmill("dataset", "add", "mixed", "mixed", "--kind", "image")
    assert "rejected 10 more; --json lists the first 22" in added.err.splitlines()


def test_a_folder_of_sounds_becomes_a_version_and_what_is_none_is_told(genmill, tmp_path):
    (tmp_path / "calls").mkdir()
    for n, label in enumerate(["cat", "dog"] * 5):
        sound = write_wav(np.arange(100 + n, dtype=np.int16), 11_025, {})
        (tmp_path / "calls" / f"{label}_{n}.wav").write_bytes(sound)
    (tmp_path / "calls" / "song.mp3").write_bytes(b"ID3")
    added = genmill("dataset", "add", "calls", "calls", "--kind", "audio")
    assert (added.code, added.out) == (0, "calls:1\n")
    assert "rejected song.mp3: cannot be read as a sound: Format not recognised" in added.err
    assert "labels: cat, dog, from the beginnings of the files' names" in added.err
    shown = genmill("dataset", "show", "calls", "--json").json
    assert (shown["kind"], shown["labels"], shown["rejected"]) == ("audio", ["cat", "dog"], 1)
    assert (shown["shape"]["sample_rate"], sum(shown["counts"].values())) == (11_025, 10)
    refused = genmill("enqueue", "train", "gan", "--dataset", "calls", "--name", "m")
    assert (refused.code, "trains on image datasets" in refused.err) == (2, True)


def test_the_shares_of_the_splits_can_be_chosen(genmill):
    Path("a.txt").write_text("to be or not to be\n" * 100)
    added = genmill("dataset", "add", "a", "a.txt", "--split", "80,20,0", "--json").json
    assert added["counts"]["test"] == 0
    for wrong in ("80", "90,x,5", "0,50,50"):
        refused = genmill("dataset", "add", "a", "a.txt", "--split", wrong)
        assert (refused.code, "split" in refused.err) == (2, True)


def test_nothing_is_left_in_the_home_but_record_and_store(genmill, home):
    Path("a.txt").write_text("to be or not to be\n" * 99)
    genmill("dataset", "add", "a", "a.txt")
    assert {path.name.partition("-")[0] for path in home.iterdir()} <= {"genmill.db", "store"}


def test_remove_hides_a_version_and_then_all(genmill, pictures):
    assert genmill("dataset", "remove", "pictures:1").out == "pictures:1\n"
    assert genmill("dataset", "show", "pictures").code == 4


def test_remove_is_refused_while_a_job_needs_it(genmill, pictures):
    job = genmill("enqueue", "train", "gan", "--dataset", pictures, "--name", "m").out.strip()
    wrong = genmill("dataset", "remove", pictures)
    assert wrong.code == 2
    assert job in wrong.err
