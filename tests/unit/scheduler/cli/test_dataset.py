import json
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


def write_rows(path: str, rows: list[str]) -> None:
    Path(path).write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))


def test_an_update_keeps_splits_leaves_out_what_is_known_and_takes_the_same_options(genmill):
    old = [f"the {n} small bird of number {n * n} sings" for n in range(40)]
    write_rows("old.jsonl", old)
    said = ("--licence", "CC-BY-4.0", "--source", "a garden", "--tag", "year=2024")
    genmill("dataset", "add", "birds", "old.jsonl", "--mask-personal", "--min-size", "9", *said)
    write_rows("new.jsonl", [old[3], "mail me at a@example.org about the birds", "short"])
    updated = genmill("dataset", "update", "birds", "new.jsonl", "--tag", "more=yes")
    assert updated.out == "birds:2\n"
    assert "exact-duplicates: 1 of 2; 1 equal to another item" in updated.err
    shown = genmill("dataset", "show", "birds", "--json").json
    assert (sum(shown["counts"].values()), shown["parent"]) == (41, "birds:1")
    assert (shown["licence"], shown["source"]) == ("CC-BY-4.0", "a garden")
    assert shown["tags"] == {"year": "2024", "more": "yes"}
    steps = {step["name"]: step for step in shown["steps"]}
    assert steps["size"]["rejects"] == {"smaller than N characters": 1}
    assert steps["mask-personal"]["found"] == {"e-mail": 1}
    diff = genmill("dataset", "diff", "birds:1", "birds:2", "--json").json
    assert diff["counts"] == {"same": 40, "added": 1, "removed": 0, "moved": 0, "relabelled": 0}
    assert "ADDED" in genmill("dataset", "diff", "birds:1", "birds:2").out


def test_an_update_lets_labels_grow_and_moves_no_picture(genmill, tmp_path):
    for level in range(20):
        write_picture(tmp_path / "one" / ("b" if level % 2 else "d"), level)
    for level in range(20, 30):
        write_picture(tmp_path / "two" / ("a" if level % 2 else "d"), level)
    genmill("dataset", "add", "shades", "one", "--augment", "flip,shift=2")
    updated = genmill("dataset", "update", "shades", "two", "--json").json
    assert updated["labels"] == ["b", "d", "a"]
    assert updated["balance"] == [10, 15, 5]
    assert updated["augmentations"] == {"flip": 1.0, "shift": 2.0}
    counts = genmill("dataset", "diff", "shades:1", "shades:2", "--json").json["counts"]
    assert counts == {"same": 20, "added": 10, "removed": 0, "moved": 0, "relabelled": 0}
    plain = tmp_path / "plain"
    write_picture(plain, 50)
    refused = genmill("dataset", "update", "shades", "plain")
    assert (refused.code, "the version has labels" in refused.err) == (2, True)


def write_picture(folder: Path, level: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(level).integers(0, 255, (12, 12), np.uint8)
    Image.fromarray(noise).save(folder / f"{level}.png")


def test_a_sheet_shows_pictures_and_the_steps_are_listed(genmill, tmp_path):
    for level in range(30):
        write_picture(tmp_path / "set" / ("x" if level % 2 else "y"), level)
    write_picture(tmp_path / "set" / "y", 0)
    (tmp_path / "set" / "y" / "again.png").write_bytes((tmp_path / "set/y/0.png").read_bytes())
    Image.new("L", (12, 12), 9).save(tmp_path / "set" / "x" / "blank.png")
    genmill("dataset", "add", "set", "set")
    shown = genmill("dataset", "show", "set", "--sheet", "sheet.png").out
    assert "1 blank" in shown
    assert "1 equal to another item" in shown
    with Image.open("sheet.png") as sheet:
        assert min(sheet.size) > 64
    refused = genmill("dataset", "show", "set", "--sheet", "sheet.txt")
    assert (refused.code, "sheet.png" in refused.err) == (2, True)


def test_options_of_another_medium_and_wrong_values_are_refused(genmill):
    Path("a.txt").write_text("to be or not to be\n" * 99)
    for wrong, says in (
        (("--denoise", "median"), "denoise"),
        (("--loudness", "-23LUFS"), "loudness"),
        (("--augment", "flip"), "augmentation"),
        (("--tag", "x"), "KEY=VALUE"),
    ):
        refused = genmill("dataset", "add", "a", "a.txt", *wrong)
        assert (refused.code, says in refused.err) == (2, True)


def test_one_text_is_repaired_masked_and_updated(genmill):
    Path("a.txt").write_text("To be or not to be.\nAll rights reserved.\n+41 44 668 18 00\n" * 30)
    Path("b.txt").write_text("".join(f"Line {n}, my lord.\n" for n in range(60)))
    added = genmill("dataset", "add", "t", "a.txt", "--clean", "--mask-personal")
    assert (added.out, "phone 30" in added.err) == ("t:1\n", True)
    assert genmill("dataset", "update", "t", "b.txt").out == "t:2\n"
    counts = genmill("dataset", "diff", "t:1", "t:2", "--json").json["counts"]
    assert (counts["same"], counts["added"], counts["removed"]) == (3, 3, 0)
    assert genmill("dataset", "show", "t", "--sheet", "t.txt").code == 0
    assert "rights" not in Path("t.txt").read_text()


def write_oblong(folder: Path, level: int, width: int = 24) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(level).integers(0, 255, (12, width), np.uint8)
    Image.fromarray(noise).save(folder / f"{level}.png")


def test_what_was_added_is_summarised_on_stderr_and_the_version_alone_on_stdout(genmill, tmp_path):
    for level in range(12):
        write_oblong(tmp_path / "set" / ("x" if level % 3 else "y"), level, 12 + 12 * (level % 2))
    (tmp_path / "set" / "y" / "again.png").write_bytes((tmp_path / "set/y/0.png").read_bytes())
    (tmp_path / "set" / "y" / "cut.png").write_bytes(b"\x89PNG no more")
    added = genmill("dataset", "add", "set", "set", "--size", "8")
    assert added.out == "set:1\n"
    told = added.err.splitlines()
    assert "pictures: of 12x12 to 24x12 pixels, made 8x8 L" in told
    assert "balance: x: 8, y: 4" in told
    assert any(line.startswith("items: 12 (") and "train" in line for line in told)
    [left_out] = [line for line in told if line.startswith("left out: 2 (")]
    assert "1 equal to another item" in left_out
    assert "1 cannot be read as an image" in left_out
    [fitted] = [line for line in told if line.startswith("not square: ")]
    assert fitted == (
        "not square: 6 of 13, cropped to their centre (--fit pad or stretch keeps all of a picture)"
    )
    assert any(line.startswith("stored: ") and line.endswith("that were read") for line in told)
    document = genmill("dataset", "add", "set", "set", "--size", "8", "--json").json
    size = sum(each.stat().st_size for each in (tmp_path / "set").rglob("*.png"))
    assert (document["version"], document["source_bytes"]) == (1, size)


def test_an_update_fits_pictures_as_the_version_did_and_show_tells(genmill, tmp_path):
    for level in range(6):
        write_oblong(tmp_path / "one", level)
        write_oblong(tmp_path / "two", 50 + level)
    genmill("dataset", "add", "set", "one", "--fit", "pad", "--size", "16")
    updated = genmill("dataset", "update", "set", "two")
    assert "not square: 6 of 6, padded with white" in updated.err.splitlines()
    shown = genmill("dataset", "show", "set", "--json").json
    [step] = [each for each in shown["steps"] if each["name"] == "fit"]
    assert step["parameters"] == {"fit": "pad", "colour": "white"}
    assert "fit pad, colour white" in genmill("dataset", "show", "set").out


def test_the_summary_of_many_labels_counts_the_rest(genmill, tmp_path):
    for level in range(80):
        write_picture(tmp_path / "set" / f"label-{level}", level)
    assert "and 70 more labels" in genmill("dataset", "add", "set", "set").err
