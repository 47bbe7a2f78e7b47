"""Which job made a file: asked with files of every form, changed and unknown ones among them."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from scheduler.results.finder import SampleFinder
from scheduler.submission.enqueue import enqueue
from tests.unit.scheduler.cli.conftest import make_samples, safetensors
from worker.specs import parse_spec


def fetch(genmill, job, folder, *words):
    assert genmill("artifact", "download", job, "-o", folder, *words).code == 0
    return Path(folder)


def makers(genmill, *paths):
    done = genmill("artifact", "which", *map(str, paths), "--json")
    assert done.code == 0, done.err
    return done.json


def told(row):
    return row["job"], row["samples"], row["found_by"], row["intact"]


def test_samples_of_every_medium_name_their_job_number_model_and_seed(
    genmill, picture_job, sound_job, text_job
):
    files = [
        fetch(genmill, picture_job, "p") / "000000003.png",
        fetch(genmill, sound_job, "s") / "000000001.wav",
        fetch(genmill, text_job, "t", "--as", "files") / "000000002.json",
    ]
    rows = makers(genmill, *files)
    jobs = (picture_job, sound_job, text_job)
    assert [row["file"] for row in rows] == list(map(str, files))
    assert [told(row) for row in rows] == [
        (job, str(number), "bytes", True) for job, number in zip(jobs, (3, 1, 2), strict=True)
    ]
    assert {(row["model"], row["seed"]) for row in rows} >= {("digits:1", 7), ("prose:1", 7)}
    table = genmill("artifact", "which", str(files[0])).out.splitlines()
    assert table[0].split() == ["FILE", "JOB", "SAMPLE", "MODEL", "SEED", "FOUND_BY"]
    assert table[1].split() == [str(files[0]), picture_job, "3", "digits:1", "7", "bytes"]


def test_files_of_many_samples_name_each_job_once(genmill, picture_job, text_job):
    lines = fetch(genmill, picture_job, "l", "--as", "jsonl") / "samples.jsonl"
    texts = fetch(genmill, text_job, "t") / "samples.jsonl"
    table = fetch(genmill, picture_job, "p", "--as", "parquet") / "samples.parquet"
    shard = fetch(genmill, picture_job, "w", "--as", "webdataset") / "samples-00000.tar"
    some = fetch(genmill, picture_job, "o", "--as", "webdataset", "--sample", "1-2")
    rows = makers(genmill, lines, texts, table, shard, some / "samples-00001.tar")
    assert [told(row) for row in rows] == [
        (picture_job, "0-4", "record", None),
        (text_job, "0-2", "bytes", True),
        (picture_job, "0-4", "bytes", True),
        (picture_job, "0-1", "bytes", True),
        (picture_job, "2", "bytes", True),
    ]
    assert [row["count"] for row in rows] == [5, 3, 5, 2, 1]


def test_a_folder_of_labels_names_its_job(genmill, picture_job):
    folder = fetch(genmill, picture_job, "f", "--as", "imagefolder")
    rows = makers(genmill, folder / "cat/000000004.png", folder / "metadata.jsonl")
    assert [told(row) for row in rows] == [
        (picture_job, "4", "bytes", True),
        (picture_job, "0-4", "record", None),
    ]


def test_files_made_from_a_sample_carry_its_record(genmill, note_job, text_job, picture_job):
    files = [
        fetch(genmill, note_job, "m", "--as", "midi") / "000000001.mid",
        fetch(genmill, note_job, "w", "--as", "wav") / "000000002.wav",
        fetch(genmill, text_job, "t", "--as", "files") / "000000000.txt",
        fetch(genmill, picture_job, "p") / "000000000.json",
    ]
    assert [told(row) for row in makers(genmill, *files)] == [
        (note_job, "1", "record", None),
        (note_job, "2", "record", None),
        (text_job, "0", "bytes", True),
        (picture_job, "0", "record", None),
    ]


def test_a_changed_sample_is_known_by_its_record_and_not_intact(genmill, picture_job, text_job):
    picture = fetch(genmill, picture_job, "p") / "000000002.png"
    picture.write_bytes(picture.read_bytes() + b" ")
    lines = fetch(genmill, text_job, "t") / "samples.jsonl"
    lines.write_text(lines.read_text("utf-8").replace("text number 1", "text of mine"), "utf-8")
    assert [told(row) for row in makers(genmill, picture, lines)] == [
        (picture_job, "2", "record", False),
        (text_job, "0-2", "record", False),
    ]


def test_a_record_that_says_otherwise_is_no_sample_of_the_job(genmill, text_job):
    lines = fetch(genmill, text_job, "t") / "samples.jsonl"
    [first, *_] = lines.read_text("utf-8").splitlines()
    lines.write_text(json.dumps(json.loads(first) | {"label": "dog"}), "utf-8")
    assert genmill("artifact", "which", str(lines)).code == 4


def test_a_picture_that_was_encoded_again_is_known_by_its_look(genmill, picture_job):
    folder = fetch(genmill, picture_job, "p")
    with Image.open(folder / "000000003.png") as image:
        image.save("a.jpg", quality=75)
        image.resize((32, 32)).save("larger.webp")
        image.save("plain.png")
    rows = makers(genmill, "a.jpg", "larger.webp", "plain.png")
    assert [told(row) for row in rows] == [(picture_job, "3", "look", False)] * 3
    assert rows[2]["difference"] == 0
    assert (rows[0]["model"], rows[0]["seed"]) == ("digits:1", 7)


def test_a_picture_of_something_else_is_unknown_and_the_others_are_told(genmill, picture_job):
    folder = fetch(genmill, picture_job, "p")
    Image.radial_gradient("L").save("other.png")
    Path("notes.txt").write_text("nothing of ours")
    Path("empty").touch()
    known = str(folder / "000000001.png")
    done = genmill("artifact", "which", known, "other.png", "notes.txt", "empty")
    assert done.code == 4
    assert [line.split()[0] for line in done.out.splitlines()] == ["FILE", known]
    assert done.err.startswith(
        "Error: no job on record is known to have made other.png, notes.txt, empty; "
    )
    listed = genmill("artifact", "which", known, "other.png", "--json")
    assert listed.code == 4
    assert [row["job"] for row in listed.json] == [picture_job, None]


@pytest.mark.usefixtures("digits")
def test_the_weights_of_a_version_are_known(genmill):
    Path("model.safetensors").write_bytes(safetensors())
    [row] = makers(genmill, "model.safetensors")
    assert (row["model"], row["job"], row["found_by"]) == ("digits:1", None, "bytes")


def test_of_several_jobs_with_the_same_sample_the_oldest_is_named_first(
    genmill, services, picture_job, digits, tmp_path
):
    again = make_samples(services, digits, 5, tmp_path)
    [row] = makers(genmill, fetch(genmill, again, "p") / "000000001.png")
    assert (row["job"], row["also"]) == (picture_job, [again])
    shown = genmill("artifact", "show", "p/000000001.png", "--json").json
    assert shown["job"] == picture_job


def test_a_file_with_a_hostile_record_is_unknown(genmill, picture_job, text_job):
    lines = fetch(genmill, text_job, "t") / "samples.jsonl"
    record = json.loads(lines.read_text("utf-8").splitlines()[0])
    hostile = [
        {"weights_sha256": "x"}, {"seed": 2**70}, {"index": 2**70}, {"index": -1},
        {"model": "a\0b"}, {"custom_id": ["a"]}, {"model": {"a": 1}},
    ]  # fmt: skip
    for number, change in enumerate(hostile):
        Path(f"{number}.json").write_text(json.dumps(record | change))
    Path("not.tar").write_bytes(b"no tar" * 400)
    Path("not.parquet").write_bytes(b"PAR1 and no more")
    Path("deep.json").write_text('{"a":' * 100_000)
    names = [*(f"{number}.json" for number in range(len(hostile))), "not.tar", "not.parquet"]
    done = genmill("artifact", "which", *names, "deep.json", "--json")
    assert (done.code, "Traceback" in done.err, "unforeseen" in done.err) == (4, False, False)
    assert len(done.json) == len(names) + 1


def test_a_sample_whose_object_is_lost_does_not_stop_the_search(genmill, services, picture_job):
    folder = fetch(genmill, picture_job, "p")
    with Image.open(folder / "000000003.png") as image:
        image.save("again.png")
    shutil.rmtree(services.settings.home / "store" / "jobs")
    done = genmill("artifact", "which", "again.png")
    assert (done.code, "again.png" in done.err) == (4, True)


def test_show_and_which_agree(genmill, picture_job):
    path = str(fetch(genmill, picture_job, "p") / "000000004.png")
    [row] = makers(genmill, path)
    shown = genmill("artifact", "show", path, "--json").json
    assert (shown["job"], shown["artifact"]) == (row["job"], row["artifact"])


def test_show_says_who_knows_a_picture_without_a_record(genmill):
    for form in ("jpeg", "webp", "gif"):
        Image.new("L", (8, 8), 30).save(f"photo.{form}")
        done = genmill("artifact", "show", f"photo.{form}")
        assert (done.code, "`genmill artifact which`" in done.err) == (2, True)


def test_jobs_are_found_by_their_seed_whether_read_one_by_one_or_at_once(services, prose):
    seeds = [0, 2**31, 2**53 - 1, 2**63 - 1, 4, 5, 6, 7]
    spec = {"kind": "generate", "model": prose, "count": 1}
    made = [enqueue(services, parse_spec(spec | {"seed": seed})).id for seed in seeds]
    finder = SampleFinder(services)
    for seed, job in [*zip(seeds, made, strict=True), (seeds[1], made[1])]:
        assert finder._jobs_of("prose:1", seed) == {None: [job]}
    assert finder._jobs_of("prose:1", 99) == {}


def test_a_sample_of_a_removed_job_says_so(genmill, picture_job):
    genmill("artifact", "download", picture_job, "-o", "out")
    genmill("job", "remove", picture_job, "--yes")
    done = genmill("artifact", "which", "out/000000001.png", "--json")
    assert done.code == 4
    [found] = done.json
    assert (found["job"], len(found["removed"])) == (None, 1)
    assert f"out/000000001.png: job {picture_job} was removed on" in done.err


@pytest.mark.parametrize("kind", ["missing", "device", "folder"])
def test_a_file_that_cannot_be_read_is_named_and_the_others_are_told(
    genmill, picture_job, tmp_path, kind
):
    bad = {"missing": tmp_path / "none.png", "device": Path("/dev/zero"), "folder": tmp_path}[kind]
    sample = fetch(genmill, picture_job, "p") / "000000003.png"
    done = genmill("artifact", "which", str(bad), str(sample))
    assert done.code == 2
    assert done.err.startswith(f"Error: {bad} ")
    assert picture_job in done.out
